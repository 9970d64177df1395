"""A step that is not finite on any rank changes nothing on all, in every engine; float16's overflow included."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_training import Learned, Training, build, flat, network, take_steps, train, world_of
from gang import run_gang
from torch import Tensor

from partial_fc import CosFace
from trainer.checkpoint.trained import shared_state
from trainer.world import World

pytestmark = pytest.mark.distributed

POISONED = 2  # the step
STEPS = range(5)
ZEROS = (None, 0, 1, 2, 3)
KINDS = ("loss", "gradient", "gradient of one piece")
# ZeRO 0 goes DDP's way and ZeRO 1 nearly that of 2: once is enough for them.
CASES = [(zero, kind) for zero in ZEROS for kind in (KINDS if zero in (None, 2, 3) else KINDS[:1])]
SMOOTH = CosFace(scale=16.0, margin=0.2)  # rounding is not amplified as by SFace's slope


class _Spoil(torch.autograd.Function):
    """The embeddings as they are, an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        return embeddings.view_as(embeddings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.inf


def poison(kind: str, rank: int, world_size: int) -> Callable[[Tensor], Tensor] | None:
    """What the last rank alone does to its embeddings."""
    if rank != world_size - 1:
        return None
    calls = 0

    def act(embeddings: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if kind == "loss":
            return embeddings * math.nan
        spoiled = kind == "gradient" or calls == 2
        return _Spoil.apply(embeddings) if spoiled else embeddings

    return act


def case(zero: int | None, kind: str) -> Training:
    pieces = 3 if kind == "gradient of one piece" else 1
    return Training(zero=zero, micro_batches=pieces, batch_norm=pieces == 1, tolerance=1e-5)


def poisoned_and_not(rank: int, world: World) -> dict[Any, Any]:
    """Per engine and kind: the poisoned run, and the one to which that batch never came."""
    found = {}
    for zero, kind in CASES:
        training = case(zero, kind)
        act = poison(kind, rank, world.world_size)
        poisons = {} if act is None else {POISONED: act}
        without = [step for step in STEPS if step != POISONED]
        found[zero, kind] = (train(training, world, STEPS, poisons), train(training, world, without))
    return found


def overflowing(world: World) -> dict[str, Any]:
    """float16 with a scale that is far too large, and what a checkpoint holds on the way."""
    training = Training(trunk=torch.float16, loss_scale=2.0**24, micro_batches=2, loss=SMOOTH)
    trained, engine = build(training, world)
    before = flat(trained.backbone.state_dict()), trained.head.centers.detach().clone()
    results, unmoved = [], []
    for step in range(12):
        results += take_steps(trained, engine, world, training, [step])
        now = flat(trained.backbone.state_dict()), trained.head.centers.detach()
        unmoved.append(all(torch.equal(*pair) for pair in zip(before, now, strict=True)))
    return {"results": results, "unmoved": unmoved, "state": shared_state(trained)["loss_scale"]}


def scaled(world: World) -> list[Learned]:
    """A scale that is a power of two changes no bit of anything in float32: nothing but the backbone sees it."""
    return [train(Training(loss_scale=scale, micro_batches=2), world, STEPS) for scale in (None, 2.0, 2.0**10)]


def all_cases(rank: int, world_size: int) -> dict[str, Any]:
    with world_of(rank, world_size) as world:
        half = Training(trunk=torch.float16, loss_scale=1.0, loss=SMOOTH)
        precisions = (half, replace(half, loss_scale=256.0), Training(loss=SMOOTH))
        return {
            "poisoned": poisoned_and_not(rank, world),
            "overflowing": overflowing(world),
            "scaled": scaled(world),
            "half": [train(each, world, STEPS) for each in precisions],
        }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("passed_over")
    return run_gang(2, all_cases, folder=folder / "gang", deadline_seconds=240)


@pytest.mark.parametrize(("zero", "kind"), CASES)
def test_a_poisoned_step_leaves_no_trace_on_any_rank(found: list[dict[str, Any]], zero: int | None, kind: str) -> None:
    for rank in found:
        poisoned, without = rank["poisoned"][zero, kind]
        outcomes = [result.outcome for result in poisoned.results]
        assert [outcome.applied for outcome in outcomes] == [step != POISONED for step in STEPS]
        assert outcomes[POISONED].gradient_norm == math.inf
        assert not outcomes[POISONED].overflow
        assert math.isfinite(poisoned.results[POISONED].stats.loss) == (kind != "loss")
        assert poisoned.weights.keys() == without.weights.keys()
        for name, value in without.weights.items():
            assert torch.equal(poisoned.weights[name], value), name
        assert torch.equal(poisoned.centers, without.centers)
        assert outcomes[-1] == without.results[-1].outcome


def test_float16_overflows_until_the_scale_fits_and_nothing_moves_before(found: list[dict[str, Any]]) -> None:
    results = found[0]["overflowing"]["results"]
    outcomes = [result.outcome for result in results]
    applied = [outcome.applied for outcome in outcomes]
    first = applied.index(True)
    assert 2 <= first <= 10
    assert all(applied[first:])
    assert all(math.isfinite(result.stats.loss) for result in results), "it is the scale alone"
    assert [outcome.overflow for outcome in outcomes] == [not each for each in applied]
    assert [outcome.loss_scale for outcome in outcomes[: first + 1]] == [2.0**24 / 2**n for n in range(first + 1)]
    assert found[0]["overflowing"]["unmoved"] == [not each for each in applied]
    assert found[0]["overflowing"]["state"] == {"scale": 2.0**24 / 2**first, "good_steps": len(applied) - first}
    assert found[1]["overflowing"]["state"] == found[0]["overflowing"]["state"]
    assert [each.outcome for each in found[1]["overflowing"]["results"]] == outcomes


def test_the_centers_never_see_the_scale(found: list[dict[str, Any]]) -> None:
    for rank in found:
        plain, *with_scale = rank["scaled"]
        for other in with_scale:
            assert torch.equal(flat(other.weights), flat(plain.weights))
            assert torch.equal(other.centers, plain.centers)
            assert [r.outcome.gradient_norm for r in other.results] == [r.outcome.gradient_norm for r in plain.results]


def test_float16_learns_what_float32_learns(found: list[dict[str, Any]]) -> None:
    for rank in found:
        unscaled, scaled_up, exact = rank["half"]
        moved = (flat(exact.weights) - flat(network(Training()).state_dict())).norm()
        for other in (unscaled, scaled_up):
            assert (flat(other.weights) - flat(exact.weights)).norm() < 0.03 * moved
