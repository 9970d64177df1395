"""SFace over this rank's centers: one pass, tile by tile.

Shape letters: N global batch, R rows of this rank's class shard, T rows of one tile, D embedding size.
"""

import torch
from torch import Tensor

from partial_fc.host_centers import HostCenters
from partial_fc.selection import Selection
from partial_fc.sface import SFace
from partial_fc.tile_batches import tile_batch
from partial_fc.tiled import ACTIVE, CUT_HALVINGS, TiledResult, angle_moments, tiles
from partial_fc.workspace import Workspace


def sface_over_tiles(
    unit: Tensor,
    centers: Tensor | HostCenters,
    selection: Selection,
    loss: SFace,
    *,
    tile_classes: int,
    with_gradient: bool,
    workspace: Workspace,
) -> TiledResult:
    """SFace of N unit embeddings against the centers that take part.

    unit: [N, D]; centers: [R, D]. Peak memory beyond the gradients is a few [T, N] and [T, D] buffers. Gradients are
    those stated by :class:`SFace`; active pairs are counted by the coefficient before its sampling weight.
    """
    batch = unit.shape[0]
    result = TiledResult.zeros(unit, selection, with_gradient=with_gradient)
    cut = loss.scale * 2.0**-CUT_HALVINGS
    for number, tile in enumerate(tiles(centers, selection, tile_classes, tile_batch(unit, workspace), workspace)):
        cosines = tile.cosines()
        own_cosines = cosines[tile.own]
        coefficients = loss.negative_coefficient(cosines)
        coefficients[tile.own] = 0.0
        result.moments += angle_moments(cosines, tile.own, number=number)
        result.moments[ACTIVE] += torch.count_nonzero(coefficients >= cut)
        if tile.weights is not None and loss.sampled_negative_weight == "inverse":
            coefficients *= tile.weights[:, None]
        pulls = loss.positive_coefficient(own_cosines)
        result.intra -= (pulls * own_cosines).sum(dtype=torch.float64) / batch
        result.inter += torch.linalg.vecdot(coefficients, cosines).sum(dtype=torch.float64) / batch
        if with_gradient:
            coefficients[tile.own] = -pulls
            coefficients /= batch
            tile.add_gradients(result, coefficients)
    return result
