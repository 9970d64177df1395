"""The head where users put it: under autocast, forward only, between micro-batches of a dense phase."""

from collections.abc import Callable

import pytest
import torch
from face_geometry import COLLAPSE, STEADY, Faces

from partial_fc import CenterSGD, PartialFC, center_state, load_center_state

pytestmark = pytest.mark.numerics

CLASSES, DIM, BATCH = 2203, 290, 16


def made(phase: object = STEADY) -> tuple[PartialFC, Faces]:
    faces = Faces(phase, CLASSES, DIM, seed=1)  # type: ignore[arg-type]
    head = PartialFC(CLASSES, DIM)
    head.load_centers(faces.centers)
    return head, faces


def test_autocast_does_not_reach_the_head() -> None:
    losses = []
    for enabled in (False, True):
        head, faces = made()
        embeddings, identities = faces.batch(faces.centers, BATCH)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = head(embeddings.requires_grad_(), identities)
        loss.backward()
        assert loss.dtype == torch.float32
        losses.append((loss.item(), embeddings.grad))
    assert losses[0][0] == losses[1][0]
    assert torch.equal(losses[0][1], losses[1][1])


def test_forwards_without_gradient_leave_no_trace() -> None:
    centers = []
    for watched in (False, True):
        head, faces = made()
        optimizer = CenterSGD(head)
        for _ in range(5):
            embeddings, identities = faces.batch(faces.centers, BATCH)
            if watched:
                with torch.no_grad():
                    head(torch.randn(3, DIM), torch.tensor([0, 5, 9]))
            head(embeddings.requires_grad_(), identities).backward()
            optimizer.step()
            optimizer.zero_grad()
        centers.append(head.centers.detach())
    assert torch.equal(*centers)


@pytest.mark.parametrize("order", ["one by one", "forwards first"])
def test_dense_micro_batches_add_up(order: str) -> None:
    """The coefficients kept of one batch must not be taken for another's."""
    head, faces = made(COLLAPSE)
    batches = [faces.batch(faces.centers, size) for size in (BATCH, 7, BATCH)]
    expected = torch.zeros(CLASSES, DIM)
    for embeddings, identities in batches:
        head(embeddings.clone().requires_grad_(), identities).backward()
        gradient = head.center_gradient()
        assert gradient is not None
        expected += gradient
        head.zero_grad()
    losses = []
    for embeddings, identities in batches:
        loss = head(embeddings.clone().requires_grad_(), identities)
        if order == "one by one":
            loss.backward()
        losses.append(loss)
    if order == "forwards first":
        for loss in losses:
            loss.backward()
    assert head.stats is not None
    assert head.stats.mode == "dense"
    found = head.center_gradient()
    assert found is not None
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.double, torch.nn.Module.bfloat16])
def test_centers_stay_float32(convert: Callable[[PartialFC], object]) -> None:
    """The kernels walk over plain memory: they must never be handed another type or shape."""
    head, faces = made()
    with pytest.raises(ValueError, match="keeps its centers in float32"):
        convert(head)
    assert head.centers.dtype == torch.float32
    head.float()
    embeddings, identities = faces.batch(faces.centers, BATCH)
    for wrong in (torch.zeros(CLASSES, DIM, dtype=torch.float64), torch.zeros(CLASSES - 1, DIM)):
        head.stored_centers.data = wrong
        with pytest.raises(ValueError, match="must stay"):
            head(embeddings, identities)


def test_a_state_loaded_in_memory_is_no_longer_shared() -> None:
    """Two heads go on from one state, one of them read in between: they end alike."""
    head, faces = made()
    optimizer = CenterSGD(head, lr=0.1, weight_decay=0.01)
    twin, _ = made()
    twin_optimizer = CenterSGD(twin, lr=0.1, weight_decay=0.01)

    def step(one: PartialFC, its: CenterSGD, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        one(batch[0].clone().requires_grad_(), batch[1]).backward()
        its.step()
        its.zero_grad()

    batches = [faces.batch(faces.centers, BATCH) for _ in range(12)]
    for batch in batches[:6]:
        step(head, optimizer, batch)
    load_center_state(twin, twin_optimizer, [center_state(head, optimizer)])
    assert head.centers.isfinite().all()  # a read rescales what the first head holds
    for batch in batches[6:]:
        step(head, optimizer, batch)
        step(twin, twin_optimizer, batch)
    assert (head.centers - twin.centers).norm() < 1e-5 * (head.centers - faces.centers).norm()
