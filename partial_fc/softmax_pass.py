"""Margin softmax over all ranks' centers: a streaming log-sum-exp, then the gradients; two passes, tile by tile.

Shape letters: N global batch, R rows of this rank's class shard, T rows of one tile, D embedding size.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from partial_fc.collectives import Collectives
from partial_fc.host_centers import HostCenters
from partial_fc.margins import CombinedMargin
from partial_fc.selection import Selection
from partial_fc.tiled import ACTIVE, CUT_HALVINGS, Tile, TiledResult, angle_moments, tiles
from partial_fc.workspace import Workspace


@dataclass
class _Denominator:
    """Per sample, over all ranks' classes; all [N].

    negatives: log-sum-exp of the negatives' logits alone (-inf: there are none). positive: z_y. Kept apart, since
    log(1 + exp(negatives - z_y)) and 1 - p_y lose no digits where p_y is nearly 1.
    """

    negatives: Tensor
    positive: Tensor

    @property
    def all_classes(self) -> Tensor:
        return torch.logaddexp(self.negatives, self.positive)


def softmax_over_tiles(
    unit: Tensor,
    centers: Tensor | HostCenters,
    selection: Selection,
    loss: CombinedMargin,
    collectives: Collectives,
    *,
    tile_classes: int,
    with_gradient: bool,
    workspace: Workspace,
) -> TiledResult:
    """Cross-entropy of N unit embeddings over the centers that take part on all ranks; every rank calls it.

    unit: [N, D]; centers: [R, D]. Between the passes ranks exchange 12 bytes per sample in float32 (a maximum; a sum
    and z_y). Peak memory beyond the gradients is a few [T, N] and [T, D] buffers. The two loss parts are
    intra = -mean z_y and inter = mean log-sum-exp; gradients are those stated by :class:`CombinedMargin`.
    """
    both_passes: Iterable[Tile] = _Tiles(centers, selection, tile_classes, len(unit), workspace)
    if selection.rows is not None:
        both_passes = list(both_passes)  # a sample is small, and gathering its rows twice is not
    transposed = unit.T.contiguous()
    denominator = _denominator(transposed, both_passes, loss, collectives)
    batch = unit.shape[0]
    result = TiledResult.zeros(unit, centers, selection, with_gradient=with_gradient)
    # Each sample's loss is added up by the rank that owns its center.
    owned = selection.samples
    own_logits = denominator.positive[owned].double()
    surplus = softplus(denominator.negatives[owned].double() - own_logits)
    result.intra -= own_logits.sum() / batch
    result.inter += (own_logits + surplus).sum() / batch
    terms = _Terms(
        transposed,
        loss,
        math.log(loss.scale / batch) - denominator.all_classes,
        torch.sigmoid(denominator.negatives - denominator.positive),
    )
    result.coefficients = terms.coefficients
    for number, tile in enumerate(both_passes):
        cosines = tile.cosines(transposed)
        result.moments += angle_moments(cosines, tile.own, number=number)
        result.moments[ACTIVE] += terms.derive(tile, cosines)
        if with_gradient:
            tile.add_gradients(result, cosines, unit)
    return result


@dataclass(frozen=True)
class _Terms:
    """What a tile's gradient is made of. transposed: [D, N] unit embeddings. log_shares: [N], log(s/N) - log sum.
    pulls: [N], 1 - p_y.
    """

    transposed: Tensor
    loss: CombinedMargin
    log_shares: Tensor
    pulls: Tensor

    def derive(self, tile: Tile, cosines: Tensor) -> Tensor | int:
        """Turn cosines [T, N] into dL/d(cosines) in place, s/N * exp(s*c - log sum); returns how many are active."""
        loss, share = self.loss, self.loss.scale / len(self.pulls)
        own_slopes = loss.positive_slope(cosines[tile.own])
        _leave_out(cosines, tile, loss)
        cut = share * 2.0**-CUT_HALVINGS
        active: Tensor | int = tile.kernels.softmax_coefficients(cosines, loss.scale, self.log_shares, cut)
        cosines[tile.own] = -share * self.pulls[tile.own[1]] * own_slopes
        return active

    def coefficients(self, tile: Tile) -> Tensor:
        """dL/d(cosines) [T, N] from the tile alone."""
        cosines = tile.cosines(self.transposed)
        self.derive(tile, cosines)
        return cosines


@dataclass(frozen=True)
class _Tiles:
    """The same tiles at every pass, made anew."""

    centers: Tensor | HostCenters
    selection: Selection
    tile_classes: int
    batch: int
    workspace: Workspace

    def __iter__(self) -> Iterator[Tile]:
        return tiles(self.centers, self.selection, self.tile_classes, self.batch, self.workspace)


def _denominator(
    transposed: Tensor, all_tiles: Iterable[Tile], loss: CombinedMargin, collectives: Collectives
) -> _Denominator:
    # Finite, so that "no negative seen yet" minus itself is 0 and not NaN; no logit comes near it.
    maxima = transposed.new_full((transposed.shape[1],), torch.finfo(transposed.dtype).min / 4)
    sums = transposed.new_zeros(2, transposed.shape[1])  # of exp(z_j - maximum); z_y, from the one rank that owns it
    for tile in all_tiles:
        cosines = tile.cosines(transposed)
        sums[1].index_copy_(0, tile.own[1], loss.positive_logit(cosines[tile.own]))
        _leave_out(cosines, tile, loss)
        tile.kernels.add_exponentials(cosines, loss.scale, maxima, sums[0])
    of_all = collectives.maximum(maxima)
    sums[0] *= torch.exp(maxima - of_all)
    sums = collectives.sum(sums)
    return _Denominator(sums[0].log() + of_all, sums[1])


def _leave_out(cosines: Tensor, tile: Tile, loss: CombinedMargin) -> None:
    """In place, [T, N]: -inf where there is no negative, at the own center and above the filter."""
    if loss.interclass_filter is not None:
        cosines.masked_fill_(cosines > loss.interclass_filter, -torch.inf)
    cosines[tile.own] = -torch.inf
