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
from partial_fc.tiled import (
    ACTIVE,
    CUT_HALVINGS,
    MEASURED_TILES,
    OwnPairs,
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
    batch: TileBatch,
    centers: Tensor | HostCenters,
    selection: Selection,
    own: OwnPairs,
    loss: CombinedMargin,
    collectives: Collectives,
    *,
    with_gradient: bool,
    workspace: Workspace,
) -> TiledResult:
    """Cross-entropy of a batch's N unit embeddings over the centers that take part on all ranks; every rank calls it.

    centers: [R, D]. own: of the selection. Between the passes ranks exchange 12 bytes per sample in float32 (a maximum;
    a sum and z_y). Peak memory beyond the gradients is a few [T, N] and [T, D] buffers. The two loss parts are
    intra = -mean z_y and inter = mean log-sum-exp; gradients are those stated by :class:`CombinedMargin`.
    """
    both_passes: Iterable[Tile] = _Tiles(centers, selection, own, batch, workspace)
    if selection.rows is not None:
        both_passes = list(both_passes)  # a sample is small, and gathering its rows twice is not
    denominator = _denominator(batch.unit, both_passes, selection.samples, loss, collectives)
    size = len(batch.unit)
    result = TiledResult.zeros(batch.unit, centers, selection, with_gradient=with_gradient)
    # Each sample's loss is added up by the rank that owns its center.
    owned = selection.samples
    own_logits = denominator.positive[owned].double()
    surplus = softplus(denominator.negatives[owned].double() - own_logits)
    result.intra -= own_logits.sum() / size
    result.inter += (own_logits + surplus).sum() / size
    result.moments += positive_moments(denominator.own_cosines)
    terms = _Terms.of(denominator, owned, loss)
    result.coefficients = terms.coefficients
    for number, tile in enumerate(both_passes):
        cosines = tile.cosines()
        if number % MEASURED_TILES == 0:
            result.moments += negative_moments(cosines, tile.own)
        result.moments[ACTIVE] += terms.derive(tile, cosines)
        if with_gradient:
            tile.add_gradients(result, cosines)
    return result


@dataclass(frozen=True)
class _Terms:
    """What a tile's gradient is made of. log_shares: [N], log(s/N) - log sum. own_coefficients: [N], dL/d(own cosine)
    of samples whose center lives here: of all at once, since a GPU would wait for small operations on each tile.
    """

    loss: CombinedMargin
    log_shares: Tensor
    own_coefficients: Tensor

    @classmethod
    def of(cls, denominator: _Denominator, owned: Tensor, loss: CombinedMargin) -> "_Terms":
        share = loss.scale / len(denominator.positive)
        pulls = torch.sigmoid(denominator.negatives - denominator.positive)  # 1 - p_y
        own_coefficients = torch.zeros_like(pulls)
        own_coefficients[owned] = -share * pulls[owned] * loss.positive_slope(denominator.own_cosines)
        return cls(loss, math.log(share) - denominator.all_classes, own_coefficients)

    def derive(self, tile: Tile, cosines: Tensor) -> Tensor | int:
        """Turn cosines [T, N] into dL/d(cosines) in place, s/N * exp(s*c - log sum); returns how many are active."""
        loss = self.loss
        _leave_out(cosines, tile, loss)
        cut = loss.scale / len(self.log_shares) * 2.0**-CUT_HALVINGS
        active: Tensor | int = tile.kernels.softmax_coefficients(cosines, loss.scale, self.log_shares, cut)
        cosines[tile.own] = self.own_coefficients[tile.own[1]]
        return active

    def coefficients(self, tile: Tile) -> Tensor:
        """dL/d(cosines) [T, N] from the tile alone."""
        cosines = tile.cosines()
        self.derive(tile, cosines)
        return cosines


@dataclass(frozen=True)
class _Tiles:
    """The same tiles at every pass, made anew."""

    centers: Tensor | HostCenters
    selection: Selection
    own: OwnPairs
    batch: TileBatch
    workspace: Workspace

    def __iter__(self) -> Iterator[Tile]:
        return tiles(self.centers, self.selection, self.own, self.batch, self.workspace)


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
