"""Margin softmax in tiles against autograd, finite differences and values worked out by hand."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partial_fc import ArcFace, ClassShard, CombinedMargin, CosFace, PartialFC
from partial_fc.collectives import Collectives
from partial_fc.reference import dense_margin_softmax
from partial_fc.selection import select_all
from partial_fc.softmax_pass import softmax_over_tiles
from partial_fc.tiled import OwnPairs, TileBatch, normalize_rows, through_normalization
from partial_fc.workspace import Workspace

pytestmark = pytest.mark.numerics

ROOM = Workspace(torch.device("cpu"))

LOSSES = [
    ArcFace(),
    CosFace(),
    CosFace(scale=5.0, margin=0.0),
    CombinedMargin(scale=32.0, m1=1.0, m2=0.3, m3=0.2),
    CombinedMargin(scale=16.0, m1=2.5, m2=0.1, m3=0.05),
    CombinedMargin(scale=16.0, m1=2.5, m2=0.1, monotone=False),
    ArcFace(interclass_filter=0.1),
    CosFace(scale=8.0, interclass_filter=-0.3),
]


def problem(
    batch: int, classes: int, dim: int, seed: int = 0, shared: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    direction = shared * torch.randn(1, dim, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(batch, dim, generator=generator, dtype=torch.float64) + direction
    centers = torch.randn(classes, dim, generator=generator, dtype=torch.float64) + direction
    return embeddings, torch.randint(classes, (batch,), generator=generator), centers


def tiled(
    embeddings: torch.Tensor, identities: torch.Tensor, centers: torch.Tensor, loss: CombinedMargin, tile_classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    unit, inverse = normalize_rows(embeddings)
    selection = select_all(ClassShard(0, len(centers)), identities)
    result = softmax_over_tiles(
        TileBatch(unit),
        centers,
        selection,
        OwnPairs.of(selection, tile_classes),
        loss,
        Collectives(),
        with_gradient=True,
        workspace=ROOM,
    )
    assert result.center_gradient is not None
    gradient = through_normalization(result.unit_gradient, unit, inverse)
    return result.intra + result.inter, gradient, result.center_gradient


@settings(max_examples=80, deadline=None)
@given(
    loss=st.sampled_from(LOSSES),
    batch=st.integers(1, 13),
    classes=st.integers(1, 40),
    dim=st.integers(2, 24),
    tile_classes=st.integers(1, 50),
    seed=st.integers(0, 10**6),
    shared=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_gradient_is_that_of_autograd_in_float64(
    loss: CombinedMargin, batch: int, classes: int, dim: int, tile_classes: int, seed: int, shared: float
) -> None:
    embeddings, identities, centers = problem(batch, classes, dim, seed, shared)
    value, embedding_gradient, center_gradient = tiled(embeddings, identities, centers, loss, tile_classes)
    x, w = embeddings.requires_grad_(), centers.requires_grad_()
    truth = dense_margin_softmax(x, identities, w, loss)
    truth.backward()
    torch.testing.assert_close(value, truth.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(embedding_gradient, x.grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(center_gradient, w.grad, rtol=1e-7, atol=1e-9)


def value_by_formula(x: torch.Tensor, identities: torch.Tensor, w: torch.Tensor, loss: CombinedMargin) -> float:
    """The loss in Python numbers, straight from the formula."""
    total = 0.0
    for i, own in enumerate(identities.tolist()):
        logits = []
        for j in range(len(w)):
            cosine = float(x[i] @ w[j] / (x[i].norm() * w[j].norm()))
            if j == own:
                moved = loss.m1 * math.acos(cosine) + loss.m2
                half_turns = math.floor(moved / math.pi) if loss.monotone else 0
                cosine = (-1) ** half_turns * math.cos(moved) - 2 * half_turns - loss.m3
            elif loss.interclass_filter is not None and cosine > loss.interclass_filter:
                continue
            logits.append((j == own, loss.scale * cosine))
        top = max(logit for _, logit in logits)
        log_sum = top + math.log(sum(math.exp(logit - top) for _, logit in logits))
        total += log_sum - next(logit for positive, logit in logits if positive)
    return total / len(identities)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("far", [False, True], ids=["near", "beyond pi"])
def test_gradient_is_the_derivative_of_the_value(loss: CombinedMargin, far: bool) -> None:
    """Finite differences of the formula; `far` puts every positive at theta > pi - 0.35, beyond ArcFace's half turn."""
    embeddings, identities, centers = problem(4, 6, 5, seed=1)
    if far:
        noise = torch.randn(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        embeddings = -centers[identities] / centers[identities].norm(dim=1, keepdim=True) + 0.1 * noise
    found, embedding_gradient, center_gradient = tiled(embeddings, identities, centers, loss, 4)
    assert found.item() == pytest.approx(value_by_formula(embeddings, identities, centers, loss), rel=1e-10)
    for tensor, gradient in ((embeddings, embedding_gradient), (centers, center_gradient)):
        numeric = torch.zeros_like(tensor)
        for index in range(tensor.numel()):
            values = []
            for sign in (1, -1):
                moved = tensor.clone()
                moved.view(-1)[index] += sign * 1e-6
                points = (moved, identities, centers) if tensor is embeddings else (embeddings, identities, moved)
                values.append(value_by_formula(*points, loss))
            numeric.view(-1)[index] = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-6)


def head_with(centers: torch.Tensor, loss: CombinedMargin, **arguments: Any) -> PartialFC:
    head = PartialFC(len(centers), centers.shape[1], loss, **arguments)
    head.load_centers(centers)
    return head


def test_cosface_by_hand() -> None:
    """z = (2 * (1 - 1/2), 2 * 0): the loss is log(1 + e^-1), and only p_1 = 1 / (1 + e) pulls and pushes."""
    head = head_with(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), CosFace(scale=2.0, margin=0.5))
    x = torch.tensor([[4.0, 0.0]], requires_grad=True)
    loss = head(x, torch.tensor([0]))
    loss.backward()
    p1 = 1.0 / (1.0 + math.e)
    assert loss.item() == pytest.approx(math.log(1.0 + math.exp(-1.0)), rel=1e-6)
    # x is at its own center, so only the negative turns it: 2 p_1 along (0, 1), over the norm 4.
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 2.0 * p1 / 4.0]]))
    torch.testing.assert_close(head.center_gradient(), torch.tensor([[0.0, 0.0], [2.0 * p1 / 3.0, 0.0]]))
    assert head.stats is not None
    assert head.stats.active_pairs == 1
    assert head.stats.theta_negative == pytest.approx(math.pi / 2)
    assert head.stats.loss_intra == pytest.approx(-1.0)


def test_arcface_by_hand() -> None:
    """60 degrees and a margin of 30: z_y = cos(90) = 0 = z_1, p = 1/2, and dz_y/dc_y = sin(90) / sin(60)."""
    own = torch.tensor([0.5, math.sqrt(3.0) / 2.0])
    head = head_with(torch.stack([own, torch.tensor([0.0, 1.0])]), ArcFace(scale=1.0, margin=math.pi / 6))
    x = torch.tensor([[1.0, 0.0]])
    loss = head(x, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2.0), rel=1e-6)
    pull = -0.5 * 2.0 / math.sqrt(3.0)
    expected = torch.stack([pull * (x[0] - 0.5 * own), torch.tensor([0.5, 0.0])])
    torch.testing.assert_close(head.center_gradient(), expected, atol=1e-6, rtol=1e-5)


def test_the_loss_does_not_saturate() -> None:
    """-log of a probability clamped at 1e-30 stops at 69.08 (the peer's trap)."""
    head = head_with(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), CosFace(scale=64.0, margin=0.4))
    x = torch.tensor([[1.0, 0.1]], requires_grad=True)
    loss = head(x, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(64.0 * (2.0 / math.sqrt(1.01) + 0.4), rel=1e-5)
    assert x.grad.norm() > 1.0


def test_small_losses_keep_their_digits() -> None:
    """1 - p_y and log(1 + tiny) in float32, where p_y itself rounds to 1."""
    centers = torch.eye(5)
    head = head_with(centers, CosFace(scale=40.0, margin=0.4))
    x = centers[:1] + 0.05 * centers[1:2]
    x.requires_grad_()
    loss = head(x, torch.tensor([0]))
    loss.backward()
    w, x64 = centers.double().requires_grad_(), x.detach().double().requires_grad_()
    truth = dense_margin_softmax(x64, torch.tensor([0]), w, CosFace(scale=40.0, margin=0.4))
    truth.backward()
    assert truth < 1e-9
    assert loss.item() == pytest.approx(truth.item(), rel=1e-4)
    assert (x.grad.double() - x64.grad).norm() < 1e-4 * x64.grad.norm()


@pytest.mark.parametrize("loss", [*LOSSES, ArcFace(scale=1e4), CosFace(scale=1e4)], ids=str)
def test_rounded_cosines_and_extreme_angles_give_no_nan(loss: CombinedMargin) -> None:
    torch.manual_seed(0)
    centers = torch.randn(300, 64)
    centers[7] = 0.0
    unit, _ = normalize_rows(centers)
    assert ((unit * unit).sum(1) > 1).any(), "the trap is real on this machine"
    head = head_with(centers, loss, tile_classes=77)
    for sign in (1.0, -1.0):
        x = (sign * centers).clone().requires_grad_()
        head.zero_grad()
        value = head(x, torch.arange(300))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(x.grad).all()
        assert (x.grad[7] == 0).all(), "a zero embedding has no direction, hence no gradient"
        assert torch.isfinite(head.center_gradient()).all()
    extremes = torch.tensor([1.5, 1.0000002, 1.0, -1.0, -1.0000002, -1.5])
    for dtype in (torch.float32, torch.float64):
        assert torch.isfinite(loss.positive_logit(extremes.to(dtype))).all()
        assert torch.isfinite(loss.positive_slope(extremes.to(dtype))).all()


@pytest.mark.parametrize("loss", [ArcFace(scale=1e4), CosFace(scale=1e4), ArcFace(scale=1e4, interclass_filter=0.2)])
def test_huge_logits_are_stable(loss: CombinedMargin) -> None:
    embeddings, identities, centers = problem(9, 50, 8, seed=4)
    head = head_with(centers.float(), loss, tile_classes=13)
    found = head(embeddings.float(), identities)
    truth = dense_margin_softmax(embeddings.float().double(), identities, centers.float().double(), loss)
    assert truth > 1000
    assert found.item() == pytest.approx(truth.item(), rel=1e-5)


def test_not_a_number_is_not_hidden() -> None:
    head = PartialFC(5, 4, ArcFace())
    x = torch.randn(3, 4)
    x[1, 2] = torch.nan
    assert torch.isnan(head(x, torch.tensor([0, 1, 2])))


def test_interclass_filter_drops_negatives_and_keeps_positives() -> None:
    own, close, far = torch.tensor([1.0, 0.1, 0.0]), torch.tensor([1.0, -0.3, 0.0]), torch.tensor([0.2, 0.0, 1.0])
    x = torch.tensor([[1.0, 0.0, 0.0]])
    filtered = head_with(torch.stack([own, close, far]), CosFace(scale=4.0, interclass_filter=0.5))
    without = head_with(torch.stack([own, far]), CosFace(scale=4.0))
    losses = [head(x, torch.tensor([0])) for head in (filtered, without)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1])
    gradient = filtered.center_gradient()
    assert (gradient[1] == 0).all()
    torch.testing.assert_close(gradient[[0, 2]], without.center_gradient())
    assert gradient[0].norm() > 0, "its own center is closer than the filter and still trains"

    alone = head_with(torch.stack([own, close]), CosFace(scale=4.0, interclass_filter=0.5))
    loss = alone(x, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0.0
    assert (alone.center_gradient() == 0).all(), "all negatives dropped: nothing left to learn, and no NaN"


def test_one_class_has_nothing_to_learn() -> None:
    head = PartialFC(1, 4, ArcFace())
    loss = head(torch.randn(3, 4), torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert (head.center_gradient() == 0).all()


@pytest.mark.parametrize("tile_classes", [1, 7, 36, 37, 38, 8192])
def test_the_tile_size_changes_nothing(tile_classes: int) -> None:
    embeddings, identities, centers = problem(6, 37, 5, seed=3)
    for loss in LOSSES:
        found = tiled(embeddings, identities, centers, loss, tile_classes)
        truth = tiled(embeddings, identities, centers, loss, 10)
        for pair in zip(found, truth, strict=True):
            torch.testing.assert_close(*pair, rtol=1e-10, atol=1e-12)


def test_arcface_and_cosface_are_special_cases() -> None:
    cosine = torch.linspace(-1.0, 1.0, 101)
    for special, general in (
        (ArcFace(30.0, 0.4), CombinedMargin(30.0, 1.0, 0.4, 0.0)),
        (CosFace(30.0, 0.4), CombinedMargin(30.0, 1.0, 0.0, 0.4)),
    ):
        assert torch.equal(special.positive_logit(cosine), general.positive_logit(cosine))
        assert torch.equal(special.positive_slope(cosine), general.positive_slope(cosine))
    assert (ArcFace().m2, CosFace().m3) == (0.5, 0.4)


@pytest.mark.parametrize("loss", [ArcFace(), CombinedMargin(64.0, 3.0, 0.5, 0.1)], ids=str)
def test_the_positive_logit_falls_with_the_angle_even_beyond_pi(loss: CombinedMargin) -> None:
    theta = torch.linspace(0.0, math.pi, 2001, dtype=torch.float64)
    logits = loss.positive_logit(theta.cos()) / loss.scale
    moved = loss.m1 * theta + loss.m2
    below = moved < math.pi
    torch.testing.assert_close(logits[below], moved[below].cos() - loss.m3, rtol=0.0, atol=1e-7)
    assert (logits.diff() <= 1e-7).all()
    assert logits.diff().abs().max() < loss.m1 * 0.002, "without a jump"
    assert (loss.positive_slope(theta.cos()) >= 0).all()
    plain = CombinedMargin(loss.scale, loss.m1, loss.m2, loss.m3, monotone=False)
    torch.testing.assert_close(
        plain.positive_logit(theta.cos()) / loss.scale, moved.cos() - loss.m3, rtol=0.0, atol=1e-7
    )
    assert (plain.positive_slope(theta.cos()) < 0).any(), "the trap: plain cos pushes far samples away"
