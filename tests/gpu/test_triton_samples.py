"""Triton's kernels of batch and sample against PyTorch's on the CPU."""

import pytest
import torch
from triton_here import DEVICE, MARKS, draw, of_cuda_alone

from partial_fc import SFace, kernels, sample_kernels_torch, sample_kernels_triton

pytestmark = MARKS

BOTH = [(sample_kernels_triton, DEVICE), (sample_kernels_torch, torch.device("cpu"))]
SIZES = [(1, 1, 1), (70, 21, 37), (33, 130, 512)]  # S, N, D


@of_cuda_alone
def test_cuda_gets_them() -> None:
    assert kernels.sample_kernels_for(torch.zeros(3, 4, device="cuda")) is sample_kernels_triton
    assert kernels.sample_kernels_for(torch.zeros(3, 4, device="cuda", dtype=torch.float64)) is sample_kernels_torch


@pytest.mark.parametrize(("_count", "batch", "dim"), SIZES)
def test_code_batch(_count: int, batch: int, dim: int) -> None:
    unit = torch.nn.functional.normalize(draw(batch, dim))
    unit[0] = 0.0
    padded, width = -(-batch // 16) * 16, -(-dim // 16) * 16
    found = []
    for kernel, device in BOTH:
        codes = torch.full((padded, width), 77, dtype=torch.int8, device=device)
        scales, residuals = torch.full((2, padded), torch.nan, device=device)
        kernel.code_batch(unit.to(device), codes, scales, residuals)
        found.append((codes.cpu(), scales.cpu(), residuals.cpu()))
    (codes, scales, residuals), (expected, expected_scales, expected_residuals) = found
    torch.testing.assert_close(scales, expected_scales)
    assert (codes.int() - expected.int()).abs().max() <= 1, "half way between two"
    assert torch.equal(residuals[batch:], expected_residuals[batch:])
    rest = unit.double() - scales[:batch, None].double() * codes[:batch, :dim].double()
    assert (rest.norm(dim=1) <= residuals[:batch].double()).all()
    assert (residuals[:batch] <= expected_residuals[:batch] * 1.01 + 1e-5).all()


@pytest.mark.parametrize(("count", "batch", "dim"), [*SIZES, (0, 5, 8)])
def test_drop_forces(count: int, batch: int, dim: int) -> None:
    dropped = draw(count, batch).abs() * 1e-3
    dropped[:, ::3] = 0.0
    centers, unit = (torch.nn.functional.normalize(draw(size, dim, seed=size)) for size in (count, batch))
    weights, sample_weights = draw(count, seed=5).exp(), draw(batch, seed=6).exp()
    push, gram, pull = dropped.T @ centers, dropped.T @ dropped, dropped @ unit
    below = torch.tensor(1e-9, dtype=torch.float64)
    given = [dropped, push, gram, pull, centers, unit, weights, sample_weights]
    expected = sample_kernels_torch.drop_forces(*(each.double() for each in given), below)
    found = sample_kernels_triton.drop_forces(*(each.to(DEVICE) for each in given), below.to(DEVICE)).cpu()
    assert found.dtype == torch.float64
    # coherent, mass and chance are differences: of what these sizes are.
    sizes = (
        expected.abs() + torch.tensor([1.0, 1.0, 1.0, 0.1, 0.0], dtype=torch.float64) * dropped.double().square().sum()
    )
    assert ((found - expected).abs() <= 1e-4 * sizes + 1e-12).all()


@pytest.mark.parametrize(("count", "batch", "dim"), [*SIZES, (0, 5, 8)])
def test_own_forces(count: int, batch: int, dim: int) -> None:
    samples = torch.randint(batch, (count,), generator=torch.Generator().manual_seed(1))
    unit = torch.nn.functional.normalize(draw(batch, dim))
    centers = torch.nn.functional.normalize(unit[samples] + 0.7 / dim**0.5 * draw(count, dim, seed=9))
    weights, sample_weights = draw(count, seed=5).exp(), draw(batch, seed=6).exp()
    found = []
    for kernel, device in BOTH:
        given = [each.to(device) for each in (centers, weights, samples, unit, sample_weights)]
        found.append(kernel.own_forces(*given, SFace()).cpu())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6 if dim == 1 else 1e-12)
