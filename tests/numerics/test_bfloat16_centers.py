"""Centers kept in bfloat16: exact on what is stored, nothing rounded without need, and training that does not stall."""

import copy
from typing import Any

import pytest
import torch
from allocations import Allocations
from face_geometry import COLLAPSE, STEADY, Faces, Phase, at_angle
from head_accuracy import Found, check_step, dense_truth
from torch import Tensor

from partial_fc import (
    CenterSGD,
    CosFace,
    PartialFC,
    SFace,
    center_state,
    load_center_state,
    native_library,
    stochastic_rounding,
)
from partial_fc.center_module import CenterDtype
from partial_fc.margins import CombinedMargin

pytestmark = pytest.mark.numerics

CLASSES, DIM, BATCH = 3001, 290, 32
BF16 = torch.bfloat16


def head_of(faces: Faces, center_dtype: CenterDtype = "bfloat16", **options: Any) -> PartialFC:
    head = PartialFC(len(faces.centers), faces.centers.shape[1], center_dtype=center_dtype, **options)
    head.load_centers(faces.centers)
    return head


def step(head: PartialFC, optimizer: CenterSGD, batch: tuple[Tensor, Tensor]) -> Found:
    x = batch[0].clone().requires_grad_()
    loss = head(x, batch[1])
    loss.backward()
    gradient = head.center_gradient()
    assert x.grad is not None and gradient is not None and head.stats is not None
    found = Found(loss.item(), x.grad, gradient, head.stats)
    optimizer.step()
    optimizer.zero_grad()
    return found


@pytest.mark.parametrize(
    ("loss", "rate", "phase"),
    [(SFace(), 1.0, STEADY), (SFace(), 1.0, COLLAPSE), (SFace(), 0.3, STEADY), (CosFace(), 1.0, STEADY)],
    ids=["screened", "dense", "sampled", "softmax"],
)
def test_a_step_is_that_of_float32_centers_with_the_stored_values(
    loss: SFace | CombinedMargin, rate: float, phase: Phase
) -> None:
    """Bit for bit, on rows at rest and rows in motion: widening is all that differs. Both gradients and the loss."""
    faces = Faces(phase, CLASSES, DIM)
    head = head_of(faces, loss=loss, sample_rate=rate, tile_classes=1000)
    assert torch.equal(head.centers, faces.centers.to(BF16).float()), "loaded to the nearest"
    optimizer = CenterSGD(head, lr=1e-3 if phase is COLLAPSE else 0.1)
    for _ in range(3):
        step(head, optimizer, faces.batch(faces.centers, BATCH))
    twin = PartialFC(CLASSES, DIM, loss, sample_rate=rate, tile_classes=1000)
    twin_optimizer = CenterSGD(twin, lr=1e-3 if phase is COLLAPSE else 0.1)
    load_center_state(twin, twin_optimizer, [center_state(head, optimizer)])
    assert torch.equal(twin.stored_centers, head.stored_centers.float())
    batch = faces.batch(faces.centers, BATCH)
    ours, theirs = step(head, optimizer, batch), step(twin, twin_optimizer, batch)
    assert ours.stats == theirs.stats
    assert ours.loss == theirs.loss
    assert torch.equal(ours.embedding_gradient, theirs.embedding_gradient)
    assert torch.equal(ours.center_gradient, theirs.center_gradient)
    moved = head.centers - twin.centers
    assert moved.abs().max() > 0.0, "the step itself is rounded"
    assert (moved.abs() <= 2.0**-6 * twin.centers.abs().clamp_min(1e-4)).all(), "by a step of the table, or two"


def test_screening_keeps_its_tolerance_and_its_bound_while_rows_move() -> None:
    faces = Faces(STEADY, CLASSES, DIM)
    head = head_of(faces)
    optimizer = CenterSGD(head, lr=0.1)
    for number in range(6):
        batch = faces.batch(head.centers, BATCH)
        truth = dense_truth(*batch, head.centers.double(), SFace())
        check_step(step(head, optimizer, batch), truth, head.tolerance, number)
        rows = head.rows
        assert rows is not None and rows.tables.codes is not None
        unit, inverse = torch.empty(CLASSES, DIM), torch.empty(CLASSES)
        rows.unit_rows(None, 0, unit, inverse)
        coded = rows.tables.scales[:, None].double() * rows.tables.codes[:, :DIM].double()
        assert ((unit.double() - coded).norm(dim=1) <= rows.tables.slack.double()).all()


def test_only_rows_with_a_gradient_are_rounded() -> None:
    """Weight decay works on all rows, and for the others it changes nothing that is stored."""
    faces = Faces(STEADY, CLASSES, DIM)
    head = head_of(faces)
    before = head.stored_centers.detach().clone()
    optimizer = CenterSGD(head, lr=0.1, weight_decay=0.01)
    touched = torch.zeros(CLASSES, dtype=torch.bool)
    for _ in range(8):
        found = step(head, optimizer, faces.batch(faces.centers, BATCH))
        touched |= found.center_gradient.any(dim=1)
        assert torch.equal(head.centers, head.centers)
    same = (head.stored_centers == before).all(dim=1)
    assert same[~touched].all()
    assert (~same[touched]).float().mean() > 0.9
    share = head.centers[~touched] / before[~touched].float()
    assert 0.9 < share.nanmedian() < 0.999, "all of them shrank, by a number beside the table"


@pytest.mark.parametrize("way", ["center_state", "state_dict"])
@pytest.mark.parametrize("loss", [SFace(), CosFace()], ids=["sface", "cosface"])
def test_a_resumed_training_goes_on_bit_for_bit(loss: SFace | CombinedMargin, way: str) -> None:
    faces = Faces(STEADY, CLASSES, DIM)
    batches = [faces.batch(faces.centers, BATCH) for _ in range(10)]
    first = head_of(faces, loss=loss, seed=5)
    optimizer = CenterSGD(first, lr=0.1)
    for batch in batches[:6]:
        step(first, optimizer, batch)
    other = PartialFC(CLASSES, DIM, loss, center_dtype="bfloat16", seed=5)
    other_optimizer = CenterSGD(other, lr=0.1)
    if way == "center_state":
        load_center_state(other, other_optimizer, [copy.deepcopy(center_state(first, optimizer))])
    else:
        other.load_state_dict(copy.deepcopy(first.state_dict()))
        other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for batch in batches[6:]:
        assert step(first, optimizer, batch).loss == step(other, other_optimizer, batch).loss
    assert torch.equal(first.stored_centers, other.stored_centers)
    assert torch.equal(first.centers, other.centers)


def test_float32_and_bfloat16_read_what_the_other_saved() -> None:
    faces = Faces(STEADY, CLASSES, DIM)
    exact = head_of(faces, "float32")
    optimizer = CenterSGD(exact, lr=0.1)
    for _ in range(4):
        step(exact, optimizer, faces.batch(faces.centers, BATCH))
    rounded = PartialFC(CLASSES, DIM, center_dtype="bfloat16")
    rounded_optimizer = CenterSGD(rounded, lr=0.1)
    load_center_state(rounded, rounded_optimizer, [center_state(exact, optimizer)])
    assert torch.equal(rounded.stored_centers, exact.stored_centers.to(BF16))
    back = PartialFC(CLASSES, DIM)
    back_optimizer = CenterSGD(back, lr=0.1)
    load_center_state(back, back_optimizer, [center_state(rounded, rounded_optimizer)])
    assert torch.equal(back.centers, rounded.centers)


def trained_far(faces: Faces, center_dtype: CenterDtype, lr: float, steps: int) -> tuple[float, Tensor]:
    """The last loss, and how far the rows of 64 people got who are shown at the same 1.2 rad again and again."""
    head = head_of(faces, center_dtype)
    optimizer = CenterSGD(head, lr=lr, momentum=0.0, weight_decay=0.0)
    start = head.centers.detach()[:64].clone()
    noise = torch.randn(64, faces.centers.shape[1], generator=torch.Generator().manual_seed(1))
    batch = at_angle(torch.nn.functional.normalize(faces.centers[:64]), noise, 1.2), torch.arange(64)
    losses = [step(head, optimizer, batch).loss for _ in range(steps)]
    return losses[-1], (head.centers.detach()[:64] - start).double()


def test_small_steps_add_up_where_rounding_to_the_nearest_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of about a hundredth of what bfloat16 resolves: on average nothing of them is lost."""
    monkeypatch.setattr(native_library, "available", lambda: False)  # so that the bits can be chosen
    faces = Faces(STEADY, 500, 64, seed=2)
    settings: tuple[float, int] = (2e-4, 150)
    loss, wanted = trained_far(faces, "float32", *settings)
    rounded_loss, found = trained_far(faces, "bfloat16", *settings)
    half = lambda rounding, classes, dim: torch.full((len(classes), dim), 2**15)  # noqa: E731
    monkeypatch.setattr(stochastic_rounding, "random_bits", half)
    _, nearest = trained_far(faces, "bfloat16", *settings)

    def progress(moved: Tensor) -> float:
        """Along the way that float32 centers took, as a share of it."""
        return float((moved * wanted).sum() / wanted.square().sum())

    shares = progress(found), progress(nearest)
    assert abs(shares[0] - 1.0) < 0.1, shares
    assert shares[1] < 0.5, shares
    assert abs(rounded_loss - loss) < 0.01 * abs(loss)


def test_a_long_training_ends_at_the_loss_of_float32_centers() -> None:
    """150 steps of SFace at a usual rate, momentum and decay on, with rows that gather and rest."""
    losses = {}
    for center_dtype in ("float32", "bfloat16"):
        faces = Faces(STEADY, CLASSES, 96, seed=4)
        head = head_of(faces, center_dtype)  # type: ignore[arg-type]  # one of the two
        optimizer = CenterSGD(head, lr=0.1)
        found = [step(head, optimizer, faces.batch(faces.centers, BATCH)).loss for _ in range(150)]
        losses[center_dtype] = found
    exact, rounded = (torch.tensor(losses[name]).view(15, 10).mean(dim=1) for name in ("float32", "bfloat16"))
    assert exact[-3:].mean() < exact[0], "it learns something"
    gained = (exact[0] - exact[-3:].mean()).abs()
    assert (rounded[-3:].mean() - exact[-3:].mean()).abs() < 0.05 * gained


@pytest.mark.parametrize("phase", [STEADY, COLLAPSE], ids=lambda phase: phase.name)
def test_no_float32_copy_of_the_shard(phase: Phase) -> None:
    """Beside the int8 copy only the momentum has C x D elements: reserved, and in memory where rows have some."""
    faces = Faces(phase, 30_011, 256)
    head = head_of(faces)
    optimizer = CenterSGD(head, lr=1e-3)
    batches = [faces.batch(faces.centers, 64) for _ in range(2)]
    with Allocations(smallest=30_011 * 64) as allocations:
        for embeddings, identities in batches:
            head(embeddings.requires_grad_(), identities).backward()
            optimizer.step()
            optimizer.zero_grad()
        center_state(head, optimizer)
        head.read_centers(5, 900)
    large = [each for each in allocations.found if each.dtype != torch.int8]
    assert [each.operation for each in large] in ([], ["aten.new_empty.default"]), large


def test_reading_and_writing_parts() -> None:
    faces = Faces(STEADY, CLASSES, DIM)
    head = head_of(faces)
    optimizer = CenterSGD(head, lr=0.1)
    step(head, optimizer, faces.batch(faces.centers, BATCH))
    before = head.centers
    assert torch.equal(head.read_centers(100, 300), before[100:300])
    head.write_centers(1000, faces.centers[:500])
    after = head.centers
    torch.testing.assert_close(after[1000:1500], faces.centers[:500], rtol=2.0**-8, atol=0.0)
    assert torch.equal(after[:1000], before[:1000])
    head.load_centers(faces.centers)
    assert torch.equal(head.centers, faces.centers.to(BF16).float())
    with pytest.raises(ValueError, match=r"got .* to write at 2990"):
        head.write_centers(2990, faces.centers[:12])
    with pytest.raises(ValueError, match="keeps its centers in bfloat16"):
        head.float()
    with pytest.raises(ValueError, match="center_dtype is one of float32, bfloat16, got 'half'"):
        PartialFC(3, 4, center_dtype="half")  # type: ignore[arg-type]
