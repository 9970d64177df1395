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
from partial_fc.tile_batches import tile_batch
from partial_fc.tiled import (
    ACTIVE,
    CUT_HALVINGS,
    MEASURED_TILES,
    Tile,
    TileBatch,
    TiledResult,
    negative_moments,
    positive_moments,
    tiles,
)
from partial_fc.workspace import Workspace


@dataclass
class _Denominator:
    """Per sample, over all ranks' classes; all [N].

    negatives: log-sum-exp of the negatives' logits alone (-inf: there are none). positive: z_y. Kept apart, since
    log(1 + exp(negatives - z_y)) and 1 - p_y lose no digits where p_y is nearly 1. own_cosines: [M], of the samples
    whose own center lives here.
    """

    negatives: Tensor
    positive: Tensor
    own_cosines: Tensor

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
    both_passes: Iterable[Tile] = _Tiles(centers, selection, tile_classes, tile_batch(unit, workspace), workspace)
    if selection.rows is not None:
        both_passes = list(both_passes)  # a sample is small, and gathering its rows twice is not
    denominator = _denominator(unit, both_passes, selection.samples, loss, collectives)
    batch = unit.shape[0]
    result = TiledResult.zeros(unit, selection, with_gradient=with_gradient)
    # Each sample's loss is added up by the rank that owns its center.
    owned = selection.samples
    own_logits = denominator.positive[owned].double()
    surplus = softplus(denominator.negatives[owned].double() - own_logits)
    result.intra -= own_logits.sum() / batch
    result.inter += (own_logits + surplus).sum() / batch
    log_shares = math.log(loss.scale / batch) - denominator.all_classes
    cut = loss.scale / batch * 2.0**-CUT_HALVINGS
    # Of all own pairs at once: a GPU would wait for many small operations on each tile.
    result.moments += positive_moments(denominator.own_cosines)
    pulls = torch.sigmoid(denominator.negatives - denominator.positive)  # 1 - p_y
    own_coefficients = torch.zeros_like(pulls)
    own_coefficients[owned] = (-loss.scale / batch) * pulls[owned] * loss.positive_slope(denominator.own_cosines)
    for number, tile in enumerate(both_passes):
        cosines = tile.cosines()
        if number % MEASURED_TILES == 0:
            result.moments += negative_moments(cosines, tile.own)
        _leave_out(cosines, tile, loss)
        # From here on dL/d(cosines): s/N * exp(s*c - log sum).
        result.moments[ACTIVE] += tile.kernels.softmax_coefficients(cosines, loss.scale, log_shares, cut)
        if with_gradient:
            cosines[tile.own] = own_coefficients[tile.own[1]]
            tile.add_gradients(result, cosines)
    return result


@dataclass(frozen=True)
class _Tiles:
    """The same tiles at every pass, made anew."""

    centers: Tensor | HostCenters
    selection: Selection
    tile_classes: int
    batch: TileBatch
    workspace: Workspace

    def __iter__(self) -> Iterator[Tile]:
        return tiles(self.centers, self.selection, self.tile_classes, self.batch, self.workspace)


def _denominator(
    unit: Tensor, all_tiles: Iterable[Tile], owned: Tensor, loss: CombinedMargin, collectives: Collectives
) -> _Denominator:
    # Finite, so that "no negative seen yet" minus itself is 0 and not NaN; no logit comes near it.
    maxima = unit.new_full((len(unit),), torch.finfo(unit.dtype).min / 4)
    sums = unit.new_zeros(2, len(unit))  # of exp(z_j - maximum); z_y, from the one rank that owns it
    own_cosines = torch.zeros_like(maxima)
    for tile in all_tiles:
        cosines = tile.cosines()
        own_cosines.index_copy_(0, tile.own[1], cosines[tile.own])
        _leave_out(cosines, tile, loss)
        tile.kernels.add_exponentials(cosines, loss.scale, maxima, sums[0])
    own_cosines = own_cosines[owned]
    sums[1].index_copy_(0, owned, loss.positive_logit(own_cosines))
    of_all = collectives.maximum(maxima)
    sums[0] *= torch.exp(maxima - of_all)
    sums = collectives.sum(sums)
    return _Denominator(sums[0].log() + of_all, sums[1], own_cosines)


def _leave_out(cosines: Tensor, tile: Tile, loss: CombinedMargin) -> None:
    """In place, [T, N]: -inf where there is no negative, at the own center and above the filter."""
    if loss.interclass_filter is not None:
        cosines.masked_fill_(cosines > loss.interclass_filter, -torch.inf)
    cosines[tile.own] = -torch.inf
