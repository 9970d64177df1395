"""Centers that move to a head of other numbers take their momentum with them, whatever kind of head either is."""

from typing import Any

import pytest
import torch
from torch import Tensor

from partial_fc import CenterSGD, CosFace, PartialFC, SFace, center_state
from partial_fc.center_module import CenterDtype
from partial_fc.moved_centers import MovedCenters

pytestmark = pytest.mark.numerics

OLD, NEW, DIM = 4111, 3001, 12
KINDS = ("sface", "cosface")
SFACE = SFace(b=0.7)  # few pairs are that near: steps are screened, and most rows rest


def head_of(kind: str, classes: int, seed: int, center_dtype: CenterDtype = "float32") -> PartialFC:
    if kind == "sface":
        return PartialFC(classes, DIM, SFACE, seed=seed, center_dtype=center_dtype)
    return PartialFC(classes, DIM, CosFace(), sample_rate=0.5, seed=seed, center_dtype=center_dtype)


def optimizer_of(head: PartialFC, momentum: float = 0.9) -> CenterSGD:
    return CenterSGD(head, lr=0.05, momentum=momentum, weight_decay=5e-3)


def steps(head: PartialFC, optimizer: CenterSGD, count: int, numbers: Tensor | None = None) -> None:
    """On the same people each time: ``numbers`` says what those of the old head are called in this one."""
    draw = torch.Generator().manual_seed(5)
    for _ in range(count):
        who = torch.randint(OLD // 2, (24,), generator=draw)
        embeddings = torch.randn(24, DIM, generator=draw).requires_grad_()
        head(embeddings, who if numbers is None else numbers[who]).backward()
        optimizer.step()
        optimizer.zero_grad()


def trained(kind: str) -> tuple[PartialFC, CenterSGD]:
    """Fast at first, then slow, so that some rows wait to be moved."""
    head = head_of(kind, OLD, seed=1)
    optimizer = optimizer_of(head)
    steps(head, optimizer, 12)
    optimizer.param_groups[0]["lr"] = 1e-4
    steps(head, optimizer, 5)
    return head, optimizer


def momentum_of(head: PartialFC, optimizer: CenterSGD) -> Tensor:
    """torch.optim.SGD's buffer."""
    if head.rows is None:
        buffer: Tensor = optimizer.state[head.stored_centers]["momentum_buffer"]
        return buffer.clone()
    head.bring_centers_to_now()
    return head.rows.momentum(0, len(head.rows))


def moved(
    old: PartialFC, old_optimizer: CenterSGD, new: PartialFC, optimizer: CenterSGD, source: Tensor, *, keep: bool
) -> MovedCenters:
    """As a checkpoint would: in portions, shuffled, without bringing anything to now."""
    state: dict[str, Any] = center_state(old, old_optimizer)
    into = MovedCenters(new, optimizer, motion=state["motion"], keep_momentum=keep)
    kept = (source >= 0).nonzero().squeeze(1)
    for rows in kept[torch.randperm(len(kept))].split(700):
        into.put_centers(rows, state["centers"][source[rows]])
        if state["momentum"] is not None:
            into.put_momentum(rows, state["momentum"][source[rows]])
    if (motion := state["motion"]) is not None:
        now = torch.full((OLD,), -1)
        now[source[kept]] = kept
        for slots in torch.randperm(len(motion["classes"])).split(500):
            slots = slots[motion["classes"][slots] >= 0]
            rows = now[motion["classes"][slots]]
            slots, rows = slots[rows >= 0], rows[rows >= 0]
            into.put_motion(rows, {name: motion[name][slots] for name in ("momentum", "touched", "expiry", "unrest")})
    into.settle((source < 0).nonzero().squeeze(1))
    return into


def permuted_source() -> Tensor:
    """Some numbers new, some of the old ones gone, all others mixed up."""
    source = torch.randperm(OLD, generator=torch.Generator().manual_seed(2))[:NEW]
    source[torch.randperm(NEW, generator=torch.Generator().manual_seed(3))[:200]] = -1
    return source


def test_an_old_head_has_rows_at_rest_and_rows_in_motion() -> None:
    old, optimizer = trained("sface")
    assert old.stats is not None and old.stats.mode == "screened"
    motion = center_state(old, optimizer)["motion"]
    assert 100 < len(motion["classes"]) < OLD - 100
    assert (motion["touched"] < motion["now"]).any(), "some are saved as they were some steps ago"
    assert motion["shared"]["scale"] != 1.0
    assert motion["shared"]["carry"] != 0.0


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("new_kind", KINDS)
@pytest.mark.parametrize("old_kind", KINDS)
def test_rows_and_their_momentum_arrive(old_kind: str, new_kind: str, keep: bool) -> None:
    old, old_optimizer = trained(old_kind)
    source = permuted_source()
    new = head_of(new_kind, NEW, seed=9)
    initial = new.centers.detach().clone()
    optimizer = optimizer_of(new)
    into = moved(old, old_optimizer, new, optimizer, source, keep=keep)
    kept, fresh = (source >= 0).nonzero().squeeze(1), (source < 0).nonzero().squeeze(1)
    at_mean = torch.randn(50, DIM)
    into.set_new(fresh[:50], at_mean)

    before, momentum_before = old.centers.detach(), momentum_of(old, old_optimizer)
    torch.testing.assert_close(new.centers.detach()[kept], before[source[kept]], rtol=1e-6, atol=1e-7)
    assert torch.equal(new.centers.detach()[fresh[:50]], at_mean)
    assert torch.equal(new.centers.detach()[fresh[50:]], initial[fresh[50:]])
    if not keep and new.rows is None:
        assert "momentum_buffer" not in optimizer.state[new.stored_centers]
        return
    momentum = momentum_of(new, optimizer)
    if keep:
        torch.testing.assert_close(momentum[kept], momentum_before[source[kept]], rtol=1e-5, atol=1e-8)
        assert momentum_before.norm() > 0
        # carry * w + E is 0 to the rounding of its two parts.
        assert momentum[fresh].abs().max() < 1e-8
    else:
        assert not momentum.any()


@pytest.mark.parametrize("old_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("new_kind", KINDS)
def test_rows_arrive_in_a_head_that_keeps_them_in_bfloat16(old_dtype: CenterDtype, new_kind: str) -> None:
    """Rounded once at most; with their momentum, in float32."""
    old = head_of("sface", OLD, seed=1, center_dtype=old_dtype)
    old_optimizer = optimizer_of(old)
    steps(old, old_optimizer, 12)
    source = permuted_source()
    new = head_of(new_kind, NEW, seed=9, center_dtype="bfloat16")
    optimizer = optimizer_of(new)
    into = moved(old, old_optimizer, new, optimizer, source, keep=True)
    kept, fresh = (source >= 0).nonzero().squeeze(1), (source < 0).nonzero().squeeze(1)
    into.set_new(fresh[:50], torch.ones(50, DIM))
    assert new.stored_centers.dtype == torch.bfloat16
    before, momentum_before = old.centers.detach(), momentum_of(old, old_optimizer)
    torch.testing.assert_close(new.centers[kept], before[source[kept]], rtol=2.0**-6, atol=1e-7)
    if (old_dtype, new_kind) == ("bfloat16", "sface"):
        at_rest = new.rows.tables.slots[kept] < 0 if new.rows is not None else kept < 0
        assert at_rest.sum() > 100
        assert torch.equal(new.stored_centers[kept][at_rest], old.stored_centers[source[kept]][at_rest])
    torch.testing.assert_close(new.centers[fresh[:50]], torch.ones(50, DIM), rtol=2.0**-8, atol=0.0)
    momentum = momentum_of(new, optimizer)
    assert momentum.dtype == torch.float32
    assert (momentum[kept] - momentum_before[source[kept]]).norm() < 1e-2 * momentum_before.norm()
    assert momentum[fresh].norm(dim=1).max() < 1e-2 * momentum_before.norm(dim=1).max()
    steps(new, optimizer, 2)


@pytest.mark.parametrize("old_kind", KINDS)
def test_training_goes_on_as_if_nothing_had_moved(old_kind: str) -> None:
    """Ten more steps of the old head and of the one its rows moved to, on the same people, end alike."""
    old, old_optimizer = trained(old_kind)
    order = torch.randperm(OLD, generator=torch.Generator().manual_seed(4))
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(OLD)
    new = PartialFC(OLD, DIM, SFACE, tolerance=0.0, seed=9)
    optimizer = optimizer_of(new)
    moved(old, old_optimizer, new, optimizer, order, keep=True)
    truth = PartialFC(OLD, DIM, SFACE, tolerance=0.0)
    truth.load_centers(old.centers.detach())
    truth_optimizer = optimizer_of(truth)
    into = MovedCenters(truth, truth_optimizer, motion=None, keep_momentum=True)
    into.put_momentum(torch.arange(OLD), momentum_of(old, old_optimizer))
    before = truth.centers.detach().clone()
    steps(truth, truth_optimizer, 10)
    steps(new, optimizer, 10, numbers)
    change = (truth.centers.detach() - before).norm()
    assert change > 0.1
    assert (new.centers.detach()[numbers] - truth.centers.detach()).norm() < 1e-4 * change


def test_kept_momentum_is_torchs_own() -> None:
    """Rows of a head without motion, put into one with: the next steps are those of torch.optim.SGD."""
    head = PartialFC(OLD, DIM, SFACE, tolerance=0.0)
    optimizer = optimizer_of(head)
    dense = torch.nn.Parameter(head.centers.detach().clone())
    buffer = 0.1 * torch.randn(OLD, DIM, generator=torch.Generator().manual_seed(6))
    MovedCenters(head, optimizer, motion=None, keep_momentum=True).put_momentum(torch.arange(OLD), buffer)
    torch_sgd = torch.optim.SGD([dense], lr=0.05, momentum=0.9, weight_decay=5e-3)
    torch_sgd.state[dense]["momentum_buffer"] = buffer.clone()
    start = dense.detach().clone()
    draw = torch.Generator().manual_seed(7)
    for _ in range(12):
        head(torch.randn(8, DIM, generator=draw).requires_grad_(), torch.randint(OLD, (8,), generator=draw)).backward()
        dense.grad = head.center_gradient()
        optimizer.step()
        optimizer.zero_grad()
        torch_sgd.step()
    assert (head.centers.detach() - dense.detach()).norm() < 1e-5 * (dense.detach() - start).norm()


def test_a_head_without_momentum_keeps_none() -> None:
    old, old_optimizer = trained("sface")
    new = head_of("sface", OLD, seed=9)
    optimizer = optimizer_of(new, momentum=0.0)
    moved(old, old_optimizer, new, optimizer, torch.arange(OLD), keep=True)
    before = new.centers.detach().clone()
    new(torch.randn(4, DIM, requires_grad=True), torch.arange(4)).backward()
    gradient = new.center_gradient()
    assert gradient is not None
    optimizer.step()
    expected = before - 0.05 * (gradient + 5e-3 * before)
    assert (new.centers.detach() - expected).norm() < 1e-5 * (expected - before).norm()
