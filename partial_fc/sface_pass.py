"""SFace over this rank's centers: one pass, tile by tile.

Shape letters: N global batch, R rows of this rank's class shard, T rows of one tile, D embedding size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.host_centers import HostCenters
from partial_fc.selection import Selection
from partial_fc.sface import SFace
from partial_fc.tiled import ACTIVE, CUT_HALVINGS, Tile, TiledResult, angle_moments, tiles
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
    terms = _Terms(unit.T.contiguous(), loss)
    result = TiledResult.zeros(unit, centers, selection, with_gradient=with_gradient)
    result.coefficients = terms.coefficients
    cut = loss.scale * 2.0**-CUT_HALVINGS
    for number, tile in enumerate(tiles(centers, selection, tile_classes, len(unit), workspace)):
        cosines = tile.cosines(terms.transposed)
        own_cosines, coefficients = terms.of(tile, cosines)
        result.moments += angle_moments(cosines, tile.own, number=number)
        result.moments[ACTIVE] += torch.count_nonzero(coefficients >= cut)
        if tile.weights is not None and loss.sampled_negative_weight == "inverse":
            coefficients *= tile.weights[:, None]
        pulls = loss.positive_coefficient(own_cosines)
        result.intra -= (pulls * own_cosines).sum(dtype=torch.float64) / batch
        result.inter += torch.linalg.vecdot(coefficients, cosines).sum(dtype=torch.float64) / batch
        if with_gradient:
            tile.add_gradients(result, terms.derivative(tile, coefficients, pulls), unit)
    return result


@dataclass(frozen=True)
class _Terms:
    """What a tile's gradient is made of. transposed: [D, N] unit embeddings."""

    transposed: Tensor
    loss: SFace

    def of(self, tile: Tile, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines [m] with own centers, and coefficients [T, N] of the negatives, 0 at own ones."""
        own_cosines = cosines[tile.own]
        coefficients = self.loss.negative_coefficient(cosines)
        coefficients[tile.own] = 0.0
        return own_cosines, coefficients

    def derivative(self, tile: Tile, coefficients: Tensor, pulls: Tensor) -> Tensor:
        """dL/d(cosines) [T, N], in place."""
        coefficients[tile.own] = -pulls
        return coefficients.div_(self.transposed.shape[1])

    def coefficients(self, tile: Tile) -> Tensor:
        """The same from the tile alone, of an unsampled step."""
        own_cosines, coefficients = self.of(tile, tile.cosines(self.transposed))
        return self.derivative(tile, coefficients, self.loss.positive_coefficient(own_cosines))
