"""The head's error under its tolerance, and its own estimate of it, in every phase of a training: a world of one."""

import pytest
import torch
from center_traps import TRAPS, Trap, rows_at_coefficient
from face_geometry import COLLAPSE, FAINTLY_SHARED, SHARED, STEADY, WEAK, Faces, Phase
from head_accuracy import DenseTwin, Found, check_step, dense_truth, expect_dense, expect_screened
from torch import Tensor

from partial_fc import CenterSGD, PartialFC, SFace

pytestmark = pytest.mark.numerics

CLASSES, DIM, BATCH = 16_033, 320, 64
TOLERANCES = (1e-3, 1e-5)
STEPS = 4
MOMENTUM, DECAY = 0.9, 5e-4
SFACE = SFace()
# At 0.1 a collapse lasts one step: every center is pushed to the far side.
LEARNING_RATE = {"collapse": 1e-3}


def forward_backward(head: PartialFC, embeddings: Tensor, identities: Tensor) -> Found:
    x = embeddings.clone().requires_grad_()
    loss = head(x, identities)
    loss.backward()
    gradient = head.center_gradient()
    assert x.grad is not None and gradient is not None and head.stats is not None
    return Found(loss.item(), x.grad, gradient, head.stats)


def prepared(centers: Tensor, tolerance: float, lr: float) -> tuple[PartialFC, CenterSGD, DenseTwin]:
    head = PartialFC(len(centers), centers.shape[1], SFACE, tolerance=tolerance)
    head.load_centers(centers)
    settings = {"lr": lr, "momentum": MOMENTUM, "weight_decay": DECAY}
    return head, CenterSGD(head, **settings), DenseTwin.of(centers, settings)


def checked_step(
    head: PartialFC, optimizer: CenterSGD, twin: DenseTwin, batch: tuple[Tensor, Tensor], where: object
) -> None:
    """One step on ``batch``, checked against the truth at the twin's centers; the head's own are not read."""
    truth = dense_truth(*batch, twin.now, SFACE)
    found = forward_backward(head, *batch)
    check_step(found, truth, head.tolerance, where)
    optimizer.step()
    optimizer.zero_grad()
    twin.step(found.center_gradient)


def assert_at_the_same_place(head: PartialFC, twin: DenseTwin) -> None:
    off = (head.centers.detach().double() - twin.now).norm(dim=1) / twin.now.norm(dim=1).clamp_min(1e-30)
    assert off.max() < 2e-6


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("phase", [STEADY, WEAK, COLLAPSE, SHARED, FAINTLY_SHARED], ids=lambda phase: phase.name)
def test_error_stays_under_the_tolerance(phase: Phase, tolerance: float) -> None:
    """From the first step after load_centers on, with new batches and moving centers."""
    faces = Faces(phase, CLASSES, DIM)
    head, optimizer, twin = prepared(faces.centers, tolerance, LEARNING_RATE.get(phase.name, 0.1))
    for step in range(STEPS):
        where = (phase.name, tolerance, step)
        checked_step(head, optimizer, twin, faces.batch(twin.now, BATCH), where)
        if phase is STEADY and tolerance == 1e-3:
            expect_screened(head.stats, where)
        if phase is COLLAPSE:
            expect_dense(head.stats, where)
    assert_at_the_same_place(head, twin)
    checked_step(head, optimizer, twin, faces.batch(twin.now, BATCH), (phase.name, tolerance, "after a read"))


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_a_sudden_change_of_phase_keeps_the_tolerance(tolerance: float) -> None:
    """Batches jump between steady and collapsed: what earlier steps measured says nothing of the next one."""
    dense = Faces(Phase("lurking collapse", 278, lean=0.8, collapsed=True), 10_007, DIM)
    steady = Faces(Phase("its sibling", 278), 10_007, DIM)
    # In the shared direction centers agree; batches orthogonal to it do not see that.
    head, optimizer, twin = prepared(dense.centers, tolerance, 1e-3)
    for step in range(9):
        collapsed = step % 4 == 2 or step == 7
        embeddings, identities = (dense if collapsed else steady).batch(twin.now, BATCH)
        if not collapsed:
            embeddings = embeddings - (embeddings @ dense.direction)[:, None] * dense.direction
        checked_step(head, optimizer, twin, (embeddings, identities), (tolerance, step, collapsed))
        if collapsed:
            assert head.stats is not None
            assert head.stats.active_pairs > 0.9 * BATCH * len(twin.now)
            expect_dense(head.stats, (tolerance, step))
    assert_at_the_same_place(head, twin)


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_adversarial_centers(trap: Trap, tolerance: float) -> None:
    centers, batches = trap(seed=1)
    head, optimizer, twin = prepared(centers, tolerance, 1e-2)
    for step in range(4):
        checked_step(head, optimizer, twin, batches(twin.now, step), (trap.name, tolerance, step))


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_cosines_right_at_the_cut(tolerance: float) -> None:
    """Pairs whose coefficients are the cut of the step before, give or take what float32 can tell: none is missed."""
    faces = Faces(STEADY, 5003, DIM)
    head, _, _ = prepared(faces.centers, tolerance, 0.1)
    batch = faces.batch(faces.centers, BATCH)
    for nearness in (0.0, 2e-4, 1e-3, 1e-2):
        cut = forward_backward(head, *batch).stats.cut
        centers = faces.centers.clone()
        rows = torch.randperm(len(centers), generator=faces.generator)[:800]
        rows = rows[~torch.isin(rows, batch[1])]
        samples = torch.arange(len(rows)) % BATCH
        sides = torch.where(torch.arange(len(rows)) % 2 == 0, 1.0, -1.0)[:, None]
        centers[rows] = rows_at_coefficient(
            SFACE, batch[0][samples], centers[rows], cut * (1.0 + nearness * sides.double())
        )
        head.zero_grad()
        head.load_centers(centers)
        truth = dense_truth(*batch, centers, SFACE)
        check_step(forward_backward(head, *batch), truth, tolerance, (tolerance, nearness))
