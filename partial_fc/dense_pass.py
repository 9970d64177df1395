"""SFace with every pair scored in float32, tile by tile.

Shape letters: N global batch, T rows of a tile, D embedding size.
"""

from typing import TYPE_CHECKING

import torch

from partial_fc.center_rows import CenterRows
from partial_fc.full_batch import FullBatch
from partial_fc.full_gradient import DensePart, FullGradient
from partial_fc.products import add_product, product
from partial_fc.scored_step import ScoredStep
from partial_fc.sface import SFace
from partial_fc.tiled import CUT_HALVINGS

if TYPE_CHECKING:
    from partial_fc.head import PartialFC


def dense_pass(
    head: "PartialFC", rows: CenterRows, batch: FullBatch, loss: SFace, *, with_gradient: bool
) -> ScoredStep:
    """Loss and embedding gradient; the centers' is computed again, tile by tile, when the optimizer asks for it.

    Keeping it would take a second [R, D], keeping the coefficients an N x R matrix: a bounded part of them is kept.
    """
    count, dim = batch.unit.shape
    cut = loss.scale * 2.0**-CUT_HALVINGS
    unit_gradient = torch.zeros_like(batch.unit)
    sums = torch.zeros(7, dtype=torch.float64, device=batch.unit.device)
    # Micro-batches wait for the step together: the buffer is for the first.
    kept = head.keeper.keep(len(rows), dim, count, head.tile_classes) if _is_alone(head, with_gradient) else None
    for start in range(0, len(rows), head.tile_classes):
        size = min(head.tile_classes, len(rows) - start)
        unit = head.workspace.take("tile unit", size, dim)
        rows.unit_rows(None, start, unit, head.workspace.take("tile inverse", size))
        cosines = None if kept is None else kept.of(start, size)
        if cosines is None:
            cosines = head.workspace.take("tile cosines", size, count)
        product(unit, batch.transposed, cosines)
        rows.kernels.dense_coefficients(cosines, batch.own_in(start, size), loss, cut, sums)
        if with_gradient:
            add_product(unit_gradient, cosines.T, unit)
    inter, intra, active, own_angles, angles, squares, own_count = sums
    return ScoredStep(
        intra / count,
        inter / count,
        unit_gradient.div_(count),
        FullGradient([DensePart(batch, loss, 1.0 / count, kept)], rows, head.workspace, head.tile_classes),
        torch.stack([own_angles, own_count, angles, squares, len(rows) * count - own_count, active]),
        torch.zeros_like(intra),
        cut=cut,
    )


def _is_alone(head: "PartialFC", with_gradient: bool) -> bool:
    return with_gradient and head.row_gradient is None
