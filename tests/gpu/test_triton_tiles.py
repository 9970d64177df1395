"""Triton's tile kernels against PyTorch's on the CPU."""

import pytest
import torch
from triton_here import DEVICE, MARKS, draw, of_cuda_alone

from partial_fc import kernels, tile_kernels_torch, tile_kernels_triton
from partial_fc.stochastic_rounding import Rounding

pytestmark = MARKS

BOTH = [(tile_kernels_triton, DEVICE), (tile_kernels_torch, torch.device("cpu"))]
SIZES = [(1, 1, 1), (203, 21, 64), (300, 130, 37)]  # T, N, D
SHARD = Rounding(0x8765432112345678, first_class=2**32 - 50)


@of_cuda_alone
def test_cuda_gets_them() -> None:
    table = torch.zeros(3, 4, device="cuda")
    assert kernels.tile_kernels_for(table) is tile_kernels_triton
    assert kernels.tile_kernels_for(table.double()) is tile_kernels_torch
    assert kernels.tile_kernels_for(table.T) is tile_kernels_torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("count", "_batch", "dim"), SIZES)
def test_unit_rows(count: int, _batch: int, dim: int, listed: bool, dtype: torch.dtype) -> None:
    table = (draw(count + 9, dim) * 10.0 ** torch.linspace(-9, 9, count + 9)[:, None]).to(dtype)
    table[5] = 0.0
    rows = torch.randperm(count + 9, generator=torch.Generator().manual_seed(1))[:count] if listed else None
    found = []
    for kernel, device in BOTH:
        unit, inverse = (torch.full((count, width), torch.nan, device=device) for width in (dim, 1))
        kernel.unit_rows(table.to(device), None if rows is None else rows.to(device), 5, 1e-12, unit, inverse)
        found.append((unit.cpu(), inverse.cpu()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("count", "batch", "_dim"), SIZES)
def test_streaming_log_sum_exp(count: int, batch: int, _dim: int) -> None:
    tiles = [draw(count, batch, seed=number).tanh() * 0.3 + 0.2 * number for number in range(3)]
    tiles[1][0, 0] = -torch.inf
    for tile in tiles:
        tile[:, -1] = -torch.inf
    truth = torch.logsumexp(64.0 * torch.cat(tiles).double(), dim=0)
    maxima = torch.full((batch,), torch.finfo(torch.float32).min / 4, device=DEVICE)
    sums = torch.zeros(batch, device=DEVICE)
    for tile in tiles:
        tile_kernels_triton.add_exponentials(tile.to(DEVICE), 64.0, maxima, sums)
    found = (sums.double().log() + maxima).cpu()
    torch.testing.assert_close(found[:-1], truth[:-1], rtol=1e-6, atol=1e-5)
    assert float(sums[-1]) == 0.0, "no pair at all"


@pytest.mark.parametrize(("count", "batch", "_dim"), SIZES)
def test_softmax_coefficients(count: int, batch: int, _dim: int) -> None:
    cosines = draw(count, batch).tanh()
    cosines[0, 0] = -torch.inf
    offsets = draw(batch, seed=4) - 40.0
    truth = torch.exp(64.0 * cosines.double() + offsets.double())
    cut = float(truth.median())
    values = cosines.to(DEVICE)
    active = int(tile_kernels_triton.softmax_coefficients(values, 64.0, offsets.to(DEVICE), cut))
    torch.testing.assert_close(values.cpu().double(), truth, rtol=3e-5, atol=1e-37)
    assert abs(active - int((truth >= cut).sum())) <= 1
    assert float(values[0, 0]) == 0.0


@pytest.mark.parametrize(("count", "_batch", "dim"), SIZES)
def test_through_unit_rows(count: int, _batch: int, dim: int) -> None:
    unit = torch.nn.functional.normalize(draw(count, dim))
    inverse, gradient = draw(count, 1, seed=1).abs(), draw(count, dim, seed=2)
    inverse[0] = 0.0
    found = []
    for kernel, device in BOTH:
        values = gradient.to(device, copy=True)
        kernel.through_unit_rows(values, unit.to(device), inverse.to(device))
        found.append(values.cpu())
    torch.testing.assert_close(*found, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_momentum", [True, False])
@pytest.mark.parametrize("listed", [False, True])
def test_sgd_rows(listed: bool, with_momentum: bool, dtype: torch.dtype) -> None:
    """In bfloat16, a row whose float32 value differs in its last bit may be rounded the other way: hardly ever."""
    weights, momentum, gradient = draw(50, 13).to(dtype), draw(50, 13, seed=1), draw(20, 13, seed=2)
    rows = torch.arange(49, 9, -2)[:20] if listed else None
    classes = 2**33 + torch.arange(20) if listed else None
    found = []
    for kernel, device in BOTH:
        table, buffer = weights.to(device, copy=True), momentum.to(device, copy=True)
        rounding = Rounding(SHARD.key, SHARD.first_class, None if classes is None else classes.to(device))
        kernel.sgd_rows(
            table,
            buffer if with_momentum else None,
            None if rows is None else rows.to(device),
            7,
            gradient.to(device),
            0.3,
            0.9 if with_momentum else 0.0,
            0.01,
            rounding,
        )
        found.append((table.cpu(), buffer.cpu()))
    (table, buffer), (expected, expected_buffer) = found
    torch.testing.assert_close(buffer, expected_buffer, rtol=1e-6, atol=1e-6)
    if dtype == torch.float32:
        torch.testing.assert_close(table, expected, rtol=1e-6, atol=1e-6)
    else:
        assert (table != expected).sum() <= 2
        torch.testing.assert_close(table, expected, rtol=1e-2, atol=1e-6)
    touched = torch.arange(7, 27) if rows is None else rows
    others = torch.ones(50, dtype=torch.bool)
    others[touched] = False
    assert torch.equal(table[others], weights[others])
