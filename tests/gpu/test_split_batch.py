"""Products by parts in bfloat16 are float32 products: against float64."""

import pytest
import torch
from triton_here import DEVICE, INTERPRETED, MARKS, draw, of_cuda_alone

from partial_fc import tile_kernels_triton
from partial_fc.split_batch import SplitBatch
from partial_fc.tiled import Tile, TileBatch, through_normalization
from partial_fc.workspace import Workspace

pytestmark = MARKS

LIMIT = 6e-5 if INTERPRETED else 2e-5  # relative; the interpreter cuts bfloat16 off where hardware rounds


@pytest.mark.parametrize(("count", "batch", "dim"), [(1, 1, 1), (300, 21, 512), (130, 300, 37)])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cosines_and_gradients(count: int, batch: int, dim: int, listed: bool, dtype: torch.dtype) -> None:
    table = (draw(count + 9, dim) * 10.0 ** torch.linspace(-6, 6, count + 9)[:, None]).to(dtype)
    table[5] = 0.0
    rows = torch.randperm(count + 9, generator=torch.Generator().manual_seed(1))[:count] if listed else None
    unit_batch = torch.nn.functional.normalize(draw(batch, dim, seed=4))
    coefficients = draw(count, batch, seed=5).exp()
    coefficients[0, 0] = -7.0
    workspace = Workspace(DEVICE)
    split = SplitBatch(unit_batch.to(DEVICE), workspace)
    unit, inverse = split.room(workspace, "unit", count), torch.empty(count, 1, device=DEVICE)
    split.fill(tile_kernels_triton, table.to(DEVICE), None if rows is None else rows.to(DEVICE), 5, unit, inverse)
    nothing = torch.empty(0, dtype=torch.int64, device=DEVICE)
    room = torch.empty(count, batch, device=DEVICE)
    tile = Tile(split, 0, count, unit, inverse, (nothing, nothing), None, room, tile_kernels_triton)

    picked = (table[5 : 5 + count] if rows is None else table[rows]).double()
    norms = picked.norm(dim=1, keepdim=True)
    true_inverse = torch.where(norms > 1e-12, 1.0 / norms, 0.0)
    true_unit = picked * true_inverse
    truth = true_unit @ unit_batch.double().T
    assert (tile.cosines().cpu().double() - truth).abs().max() < 3 * LIMIT / dim**0.5

    of_samples, of_centers = torch.zeros(batch, dim, device=DEVICE), torch.empty(count, dim, device=DEVICE)
    split.add_gradients(tile, coefficients.to(DEVICE), of_samples, of_centers)
    again = split.center_gradient(tile, coefficients.to(DEVICE), torch.empty_like(of_centers))
    assert torch.equal(again, of_centers)
    true_samples = coefficients.double().T @ true_unit
    true_centers = through_normalization(coefficients.double() @ unit_batch.double(), true_unit, true_inverse)
    assert (of_samples.cpu().double() - true_samples).norm() <= LIMIT * true_samples.norm()
    errors = (of_centers.cpu().double() - true_centers).norm(dim=1)
    assert (errors <= LIMIT * coefficients.double().norm(dim=1) * true_inverse.squeeze(1)).all()


@of_cuda_alone
def test_cuda_gets_them() -> None:
    from partial_fc.tile_batches import tile_batch

    workspace = Workspace(DEVICE)
    assert isinstance(tile_batch(draw(2, 3).to(DEVICE), workspace), SplitBatch)
    assert type(tile_batch(draw(2, 3).double().to(DEVICE), workspace)) is TileBatch
