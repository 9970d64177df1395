"""SFace over this rank's centers: one pass, tile by tile.

Shape letters: N global batch, R rows of this rank's class shard, T rows of one tile, D embedding size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.host_centers import HostCenters
from partial_fc.selection import Selection
from partial_fc.sface import SFace
from partial_fc.tiled import ACTIVE, CUT_HALVINGS, OwnPairs, Tile, TileBatch, TiledResult, angle_moments, tiles
from partial_fc.workspace import Workspace


def sface_over_tiles(
    batch: TileBatch,
    centers: Tensor | HostCenters,
    selection: Selection,
    own: OwnPairs,
    loss: SFace,
    *,
    with_gradient: bool,
    workspace: Workspace,
) -> TiledResult:
    """SFace of a batch's N unit embeddings against the centers that take part.

    centers: [R, D]. own: of the selection. Peak memory beyond the gradients is a few [T, N] and [T, D] buffers.
    Gradients are those stated by :class:`SFace`; active pairs are counted by the coefficient before its sampling
    weight.
    """
    size = len(batch.unit)
    terms = _Terms(loss, size)
    result = TiledResult.zeros(batch.unit, centers, selection, with_gradient=with_gradient)
    result.coefficients = terms.coefficients
    cut = loss.scale * 2.0**-CUT_HALVINGS
    for number, tile in enumerate(tiles(centers, selection, own, batch, workspace)):
        cosines = tile.cosines()
        own_cosines, coefficients = terms.of(tile, cosines)
        result.moments += angle_moments(cosines, tile.own, number=number)
        result.moments[ACTIVE] += torch.count_nonzero(coefficients >= cut)
        if tile.weights is not None and loss.sampled_negative_weight == "inverse":
            coefficients *= tile.weights[:, None]
        pulls = loss.positive_coefficient(own_cosines)
        result.intra -= (pulls * own_cosines).sum(dtype=torch.float64) / size
        result.inter += torch.linalg.vecdot(coefficients, cosines).sum(dtype=torch.float64) / size
        if with_gradient:
            tile.add_gradients(result, terms.derivative(tile, coefficients, pulls))
    return result


@dataclass(frozen=True)
class _Terms:
    """What a tile's gradient is made of. size: N."""

    loss: SFace
    size: int

    def of(self, tile: Tile, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines [m] with own centers, and coefficients [T, N] of the negatives, 0 at own ones."""
        own_cosines = cosines[tile.own]
        coefficients = self.loss.negative_coefficient(cosines)
        coefficients[tile.own] = 0.0
        return own_cosines, coefficients

    def derivative(self, tile: Tile, coefficients: Tensor, pulls: Tensor) -> Tensor:
        """dL/d(cosines) [T, N], in place."""
        coefficients[tile.own] = -pulls
        return coefficients.div_(self.size)

    def coefficients(self, tile: Tile) -> Tensor:
        """The same from the tile alone, of an unsampled step."""
        own_cosines, coefficients = self.of(tile, tile.cosines())
        return self.derivative(tile, coefficients, self.loss.positive_coefficient(own_cosines))
