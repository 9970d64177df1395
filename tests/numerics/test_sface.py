"""SFace in tiles against autograd, finite differences and values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partial_fc import ClassShard, PartialFC, SFace
from partial_fc.reference import dense_sface
from partial_fc.selection import select_all
from partial_fc.sface_pass import sface_over_tiles
from partial_fc.tiled import OwnPairs, TileBatch, normalize_rows, through_normalization
from partial_fc.workspace import Workspace

pytestmark = pytest.mark.numerics

ROOM = Workspace(torch.device("cpu"))


def problem(
    batch: int, classes: int, dim: int, seed: int = 0, shared: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    direction = shared * torch.randn(1, dim, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(batch, dim, generator=generator, dtype=torch.float64) + direction
    centers = torch.randn(classes, dim, generator=generator, dtype=torch.float64) + direction
    return embeddings, torch.randint(classes, (batch,), generator=generator), centers


def tiled_gradients(
    embeddings: torch.Tensor, identities: torch.Tensor, centers: torch.Tensor, loss: SFace, tile_classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    unit, inverse = normalize_rows(embeddings)
    selection = select_all(ClassShard(0, len(centers)), identities)
    result = sface_over_tiles(
        TileBatch(unit),
        centers,
        selection,
        OwnPairs.of(selection, tile_classes),
        loss,
        with_gradient=True,
        workspace=ROOM,
    )
    gradient = through_normalization(result.unit_gradient, unit, inverse)
    assert result.center_gradient is not None
    return result.intra + result.inter, gradient, result.center_gradient


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 13),
    classes=st.integers(1, 40),
    dim=st.integers(1, 24),
    tile_classes=st.integers(1, 50),
    seed=st.integers(0, 10**6),
    shared=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_gradient_is_that_of_autograd_in_float64(
    batch: int, classes: int, dim: int, tile_classes: int, seed: int, shared: float
) -> None:
    embeddings, identities, centers = problem(batch, classes, dim, seed, shared)
    loss = SFace()
    value, embedding_gradient, center_gradient = tiled_gradients(embeddings, identities, centers, loss, tile_classes)
    x, w = embeddings.requires_grad_(), centers.requires_grad_()
    truth, _, _ = dense_sface(x, identities, w, loss)
    truth.backward()
    # Absolute floors: in one dimension the true gradient is zero and only rounding is left.
    torch.testing.assert_close(value, truth.detach(), rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(embedding_gradient, x.grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(center_gradient, w.grad, rtol=1e-7, atol=1e-9)


def test_reference_has_the_derivative_of_the_formula_with_frozen_coefficients() -> None:
    """Finite differences of the loss whose sigmoids are held at the point itself, straight from the paper."""
    embeddings, identities, centers = problem(4, 6, 5, seed=1, shared=1.0)
    s, k, a, b = 64.0, 80.0, 0.9, 1.2

    def cosine(i: int, j: int, x: torch.Tensor, w: torch.Tensor) -> float:
        return float(x[i] @ w[j] / (x[i].norm() * w[j].norm()))

    def sigmoid(value: float) -> float:
        return 1.0 / (1.0 + math.exp(-value)) if value > -700 else 0.0

    frozen = [
        [
            -s * sigmoid(k * (math.acos(cosine(i, j, embeddings, centers)) - a))
            if j == int(identities[i])
            else s * sigmoid(k * (b - math.acos(cosine(i, j, embeddings, centers))))
            for j in range(6)
        ]
        for i in range(4)
    ]

    def value(x: torch.Tensor, w: torch.Tensor) -> float:
        return sum(frozen[i][j] * cosine(i, j, x, w) for i in range(4) for j in range(6)) / 4

    found, embedding_gradient, center_gradient = tiled_gradients(embeddings, identities, centers, SFace(s, k, a, b), 4)
    assert found.item() == pytest.approx(value(embeddings, centers), rel=1e-12)
    for tensor, gradient in ((embeddings, embedding_gradient), (centers, center_gradient)):
        numeric = torch.zeros_like(tensor)
        for index in range(tensor.numel()):
            step = torch.zeros_like(tensor).view(-1)
            step[index] = 1e-6
            moved = step.view_as(tensor)
            up = value(*((embeddings + moved, centers) if tensor is embeddings else (embeddings, centers + moved)))
            down = value(*((embeddings - moved, centers) if tensor is embeddings else (embeddings, centers - moved)))
            numeric.view(-1)[index] = (up - down) / 2e-6
        torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-6)


def test_values_by_hand() -> None:
    """One sample at 60 degrees from its own center and 90 from another, k=1: two sigmoids on paper."""
    embeddings = torch.tensor([[1.0, 0.0]])
    centers = torch.tensor([[0.5, math.sqrt(3) / 2], [0.0, 7.0]])
    head = PartialFC(2, 2, SFace(scale=10.0, slope=1.0, a=math.pi / 3, b=math.pi / 2))
    head.load_centers(centers)
    loss = head(embeddings, torch.tensor([0]))
    # theta_y = a: sigmoid(0) = 1/2, so -10 * 1/2 * 1/2; theta_1 = b: 10 * 1/2 * 0.
    assert loss.item() == pytest.approx(-2.5, abs=1e-5)
    assert head.stats is not None
    assert head.stats.loss_intra == pytest.approx(-2.5, abs=1e-5)
    assert head.stats.loss_inter == pytest.approx(0.0, abs=1e-5)
    assert head.stats.theta_positive == pytest.approx(math.pi / 3, abs=1e-6)
    assert head.stats["theta_negative"] == pytest.approx(math.pi / 2, abs=1e-6)
    assert head.stats.active_pairs == 1


def test_cosines_beyond_one_give_no_nan() -> None:
    """Float32 self-cosines exceed 1; arccos of such a value is NaN (regression of the paper's own code)."""
    torch.manual_seed(0)
    centers = torch.randn(4096, 128)
    unit, _ = normalize_rows(centers)
    assert ((unit * unit).sum(1) > 1).any(), "the trap is real on this machine"
    head = PartialFC(4096, 128)
    head.load_centers(centers)
    for sign in (1.0, -1.0):
        embeddings = (sign * centers[:512]).clone().requires_grad_()
        head.zero_grad()
        loss = head(embeddings, torch.arange(512))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(embeddings.grad).all()
        assert torch.isfinite(head.center_gradient()).all()
    assert torch.isfinite(SFace().positive_coefficient(torch.tensor([1.0000002, -1.0000002]))).all()
    assert torch.isfinite(SFace().negative_coefficient(torch.tensor([1.5, -1.5]))).all()


@pytest.mark.parametrize("factor", [1e-20, 1e-6, 1.0, 1e6, 1e15])
def test_zero_huge_and_tiny_rows(factor: float) -> None:
    embeddings, identities, centers = (
        tensor.float() if tensor.is_floating_point() else tensor for tensor in problem(6, 9, 8)
    )
    centers[3] = 0.0
    embeddings[2] = 0.0
    embeddings[4] *= factor
    centers[5] *= factor
    head = PartialFC(9, 8)
    head.load_centers(centers)
    x = embeddings.requires_grad_()
    head(x, identities).backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(head.center_gradient()).all()
    assert (x.grad[2] == 0).all(), "a zero embedding has no direction, hence no gradient"
    assert (head.center_gradient()[3] == 0).all()


def test_gradient_is_linear_in_the_upstream_gradient_and_accumulates() -> None:
    embeddings, identities, _ = problem(5, 7, 6)
    heads = [PartialFC(7, 6, seed=1) for _ in range(2)]
    one, scaled = (embeddings.float().requires_grad_() for _ in range(2))
    heads[0](one, identities).backward()
    for _ in range(2):
        (heads[1](scaled, identities) * 1024.0).backward()
    torch.testing.assert_close(scaled.grad, one.grad * 2048.0)
    torch.testing.assert_close(heads[1].center_gradient(), heads[0].center_gradient() * 2048.0)


def test_no_gradient_is_computed_when_none_is_asked_for() -> None:
    head = PartialFC(5, 4)
    with torch.no_grad():
        loss = head(torch.randn(3, 4), torch.tensor([0, 1, 4]))
    assert not loss.requires_grad
    assert head.center_gradient() is None


def test_initial_centers_do_not_depend_on_the_shard() -> None:
    from partial_fc.initial_centers import INIT_STD, initial_centers

    whole = initial_centers(ClassShard(0, 5000), 16, seed=7)
    for start, stop in ((0, 1), (1000, 1030), (1024, 2048), (4999, 5000), (17, 17)):
        assert torch.equal(initial_centers(ClassShard(start, stop), 16, seed=7), whole[start:stop])
    assert not torch.equal(initial_centers(ClassShard(0, 5000), 16, seed=8), whole)
    assert len(torch.unique(whole[:, 0])) == 5000, "no two classes start alike"
    assert whole.std().item() == pytest.approx(INIT_STD, rel=0.02)
