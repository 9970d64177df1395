"""The compiled tile kernels against PyTorch's and float64: awkward sizes, left-out pairs, rows without direction."""

import math

import pytest
import torch

from partial_fc import ArcFace, CenterSGD, CosFace, PartialFC, SFace, native_library, tile_kernels_native
from partial_fc import tile_kernels_torch as reference
from partial_fc.kernels import tile_kernels_for
from partial_fc.margins import CombinedMargin

pytestmark = pytest.mark.numerics

BOTH = [tile_kernels_native, reference]
SIZES = [(1, 1, 1), (17, 3, 37), (203, 21, 64), (64, 130, 5)]  # T, N, D


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_plain_float32_on_the_cpu_takes_the_compiled_ones() -> None:
    plain = draw(4, 6)
    assert tile_kernels_for(plain) is tile_kernels_native
    assert tile_kernels_for(plain, plain.double()) is reference
    assert tile_kernels_for(plain.T) is reference


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("count", "_batch", "dim"), SIZES)
def test_unit_rows(count: int, _batch: int, dim: int, listed: bool) -> None:
    table = draw(count + 9, dim) * 10.0 ** torch.linspace(-9, 9, count + 9)[:, None]
    table[5] = 0.0
    rows = torch.randperm(count + 9, generator=torch.Generator().manual_seed(1))[:count] if listed else None
    picked = table[5 : 5 + count] if rows is None else table[rows]
    norms = picked.double().norm(dim=1, keepdim=True)
    expected = torch.where(norms > 1e-12, 1.0 / norms, 0.0)
    for kernels in BOTH:
        unit, inverse = torch.full((count, dim), torch.nan), torch.full((count, 1), torch.nan)
        kernels.unit_rows(table, rows, 5, 1e-12, unit, inverse)
        torch.testing.assert_close(inverse.double(), expected, rtol=1e-6, atol=0.0)
        torch.testing.assert_close(unit.double(), picked.double() * expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("count", "batch", "_dim"), SIZES)
def test_streaming_log_sum_exp(count: int, batch: int, _dim: int) -> None:
    """Three tiles, rising so that the maximum moves, with pairs and whole samples left out."""
    tiles = [draw(count, batch, seed=number).tanh() * 0.3 + 0.2 * number for number in range(3)]
    tiles[1][0, 0] = -math.inf
    for tile in tiles:
        tile[:, -1] = -math.inf
    truth = torch.logsumexp(64.0 * torch.cat(tiles).double(), dim=0)
    for kernels in BOTH:
        maxima, sums = torch.full((batch,), torch.finfo(torch.float32).min / 4), torch.zeros(batch)
        for tile in tiles:
            kernels.add_exponentials(tile.clone(), 64.0, maxima, sums)
        found = sums.double().log() + maxima
        torch.testing.assert_close(found[:-1], truth[:-1], rtol=1e-6, atol=1e-5)
        assert float(sums[-1]) == 0.0, "no pair at all"


@pytest.mark.parametrize(("count", "batch", "_dim"), SIZES)
def test_softmax_coefficients(count: int, batch: int, _dim: int) -> None:
    cosines = draw(count, batch).tanh()
    cosines[0, 0] = -math.inf
    offsets = draw(batch, seed=4) - 40.0
    truth = torch.exp(64.0 * cosines.double() + offsets.double())
    cut = float(truth.median())
    for kernels in BOTH:
        values = cosines.clone()
        active = int(kernels.softmax_coefficients(values, 64.0, offsets, cut))
        torch.testing.assert_close(values.double(), truth, rtol=3e-5, atol=1e-37)  # 64 c is rounded to 4e-6
        assert abs(active - int((truth >= cut).sum())) <= 1
        assert float(values[0, 0]) == 0.0


@pytest.mark.parametrize(("count", "_batch", "dim"), SIZES)
def test_through_unit_rows(count: int, _batch: int, dim: int) -> None:
    unit = torch.nn.functional.normalize(draw(count, dim))
    inverse, gradient = draw(count, 1, seed=1).abs(), draw(count, dim, seed=2)
    inverse[0] = 0.0
    radial = (gradient.double() * unit.double()).sum(dim=1, keepdim=True)
    truth = (gradient.double() - radial * unit.double()) * inverse.double()
    for kernels in BOTH:
        found = gradient.clone()
        kernels.through_unit_rows(found, unit, inverse)
        torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("with_momentum", [True, False])
@pytest.mark.parametrize("listed", [False, True])
def test_sgd_rows(listed: bool, with_momentum: bool) -> None:
    """Both equal torch.optim.SGD bit for bit, and leave every other row alone."""
    weights, momentum, gradient = draw(50, 13), draw(50, 13, seed=1), draw(20, 13, seed=2)
    rows = torch.arange(49, 9, -2)[:20] if listed else None
    touched = torch.arange(7, 27) if rows is None else rows
    parameter = weights[touched].clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], lr=0.3, momentum=0.9 if with_momentum else 0.0, weight_decay=0.01)
    if with_momentum:
        optimizer.state[parameter]["momentum_buffer"] = momentum[touched].clone()
    parameter.grad = gradient.clone()
    optimizer.step()
    expected = weights.clone()
    expected[touched] = parameter.detach()
    for kernels in BOTH:
        found, found_momentum = weights.clone(), momentum.clone()
        buffer = found_momentum if with_momentum else None
        kernels.sgd_rows(found, buffer, rows, 7, gradient, 0.3, 0.9 if with_momentum else 0.0, 0.01)
        assert torch.equal(found, expected)
        assert torch.equal((found_momentum != momentum).any(dim=1).nonzero().squeeze(1), touched.sort().values) == (
            with_momentum
        )


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize(
    "loss", [CosFace(), ArcFace(interclass_filter=0.2), SFace()], ids=lambda loss: type(loss).__name__
)
def test_same_training_without_the_library(
    loss: SFace | CombinedMargin, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> torch.Tensor:
        head = PartialFC(503, 32, loss, sample_rate=rate, tile_classes=100)
        optimizer = CenterSGD(head, lr=0.1)
        for step in range(5):
            embeddings = draw(24, 32, seed=step).requires_grad_()
            head(embeddings, torch.randint(503, (24,), generator=torch.Generator().manual_seed(step))).backward()
            optimizer.step()
            optimizer.zero_grad()
        return head.centers.detach().clone()

    compiled = trained()
    monkeypatch.setattr(native_library, "available", lambda: False)
    plain = trained()
    moved = (compiled - PartialFC(503, 32).centers).norm()
    assert (compiled - plain).norm() < 1e-4 * moved
    assert not torch.equal(compiled, plain), "two ways of computing, not one"
