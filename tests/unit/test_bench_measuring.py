"""What ``pfc bench head`` counts: which problems, whose time, which memory."""

import itertools
from collections.abc import Callable

import pytest
import torch

from trainer.bench import bare_product, memory_need
from trainer.bench.bare_product import BareProduct
from trainer.bench.head_bench import bench_head
from trainer.bench.memory_need import available_bytes, needed_bytes
from trainer.bench.problem import METHODS, Effort, Problem, Row, Skipped, problems
from trainer.bench.summary import modes, quartiles
from trainer.world import World

pytestmark = pytest.mark.unit

ALONE = World(0, 1, 0, torch.device("cpu"))
EFFORT = Effort(repetitions=3, warmup=2, threads=1, seed=5)


def clock(*steps: float) -> Callable[[], float]:
    """Time that advances by one of ``steps`` from call to call, over and over."""
    times = itertools.accumulate(itertools.cycle(steps))
    return lambda: next(times)


def measure(problem: Problem, effort: Effort = EFFORT, now: Callable[[], float] | None = None) -> Row:
    (row,) = bench_head([problem], effort, world=ALONE, now=now or clock(0.0, 1.0))
    assert isinstance(row, Row)
    return row


def test_only_sface_is_measured_at_every_spread_and_tolerance() -> None:
    found = list(
        problems(
            ["product", "sface", "cosface"],
            classes=[100, 250],
            embedding_dims=[8],
            batches=[3, 5],
            spreads=[0.06, 0.1],
            tolerances=[1e-3, 1e-5],
        )
    )
    assert len(found) == 2 * 2 * (1 + 4 + 1)
    assert [(each.spread, each.tolerance) for each in found[1:5]] == [
        (0.06, 1e-3),
        (0.06, 1e-5),
        (0.1, 1e-3),
        (0.1, 1e-5),
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("method", METHODS)
def test_ratio_is_step_over_product(method: str) -> None:
    # A product takes 2 s, a step 6 s, nothing in between.
    row = measure(Problem(method, 131, 8, 7, 0.3, 1e-3), now=clock(0.0, 2.0, 0.0, 6.0))
    assert (row.product_seconds, row.seconds, row.ratio) == (2.0, 6.0, 3.0)
    assert (row.ratio_q1, row.ratio_q3, row.repetitions) == (3.0, 3.0, 3)
    assert row.bytes_moved == 0, "alone, nothing travels"
    assert (row.mode is None) == (method in ("product", "sface-plain-torch"))


def test_the_worst_phase_stays_the_worst() -> None:
    row = measure(Problem("sface-all-active", 211, 16, 9, 0.2, 1e-3), Effort(30, 5, 1, 0))
    assert row.active_pairs == 210


def test_product_goes_by_blocks_when_its_output_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    centers = torch.randn(103, 6)
    whole = BareProduct(centers, 7)
    monkeypatch.setattr(bare_product, "MAX_OUTPUT_BYTES", 4 * 7 * 40)
    blocks = BareProduct(centers, 7)
    assert whole.nbytes - blocks.nbytes == 4 * 7 * (103 - 40)
    whole()
    blocks()
    # The last block, of 23 centers, lies in the first rows of the buffer.
    torch.testing.assert_close(blocks._output[:23], whole._output[80:])


def test_other_centers_than_float32_are_stood_in_for_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare_product, "STAND_IN_ROWS", 40)
    product = BareProduct(torch.zeros(103, 6, dtype=torch.bfloat16), 7)
    assert product.nbytes == 4 * (40 * 6 + 7 * 6 + 40 * 7)
    multiplied = []
    whole = torch.mm
    monkeypatch.setattr(torch, "mm", lambda block, *rest, **out: multiplied.append(block) or whole(block, *rest, **out))
    product()
    assert [len(block) for block in multiplied] == [40, 40, 23]
    assert all(block.dtype == torch.float32 for block in multiplied)


def test_what_does_not_fit_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (Problem("sface-plain-torch", classes, 16, 8, 0.3, 1e-3) for classes in (90, 900_000))
    monkeypatch.setattr(memory_need, "available_bytes", lambda: 200 << 20)
    first, second = bench_head([small, large], EFFORT, world=ALONE, now=clock(0.0, 1.0))
    assert isinstance(first, Row)
    assert isinstance(second, Skipped)
    assert str(second) == (
        "skipped sface-plain-torch at 900,000 classes, D=16, B=8: it needs about 0.5 GiB, 0.2 GiB are free"
    )


def test_need_at_two_million_classes() -> None:
    gib = 1 << 30
    assert 1 * gib < (available_bytes() or 8 * gib) < 2**50
    needed = {method: needed_bytes(Problem(method, 2_000_000, 512, 256, 0.06, 1e-3), 1) / gib for method in METHODS}
    assert needed["sface"] < 20, "2M classes train in 24 GiB"
    assert needed["sface-plain-torch"] > 24


def test_quartiles_and_modes() -> None:
    assert quartiles([4.0]) == (4.0, 4.0, 4.0)
    assert quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)
    assert modes([]) is None
    assert modes(["dense", "dense"]) == "dense"
    assert modes(["dense", "screened", "screened"]) == "screened 2 dense 1"
