"""The K best of a gallery for each of many probes, by products that are only nearly right.

A cheap product says for each pair what its score is at most. Pairs that cannot be among the K best are left; the others
are scored exactly: in float64, row by row, rounded to float32, so that a score depends on its two rows alone, not on
tiles, threads or ranks. Two products serve, of one tile at a time:

    float32   |x - u . v| <= D 2^-23 for unit rows, in any order of summation
    int8      x <= s_u s_v (dot of codes) + (1 + r_v) r_u + r_v, s the scales of the codes, r norms of what they leave
              over (Cauchy-Schwarz): a bound on integers, the same for rows of one scale

The second one is several times as fast, and of use as soon as the K best so far are good: where it leaves too many
pairs, as among the first rows of a gallery, the first one takes over for a while.

Shapes: Q probes, G gallery rows of a tile, D embedding size, M probes padded, K kept, n pairs.
"""

import torch
from torch import Tensor

from partial_fc.coded_batch import CodedBatch
from trainer.evaluation.coded_rows import CodedRows
from trainer.evaluation.tiled_top_k import RunningTopK, TileScores

MOST_LEFT = 1 / 256  # of a tile's pairs: scoring more one by one takes longer than the float32 product
_CHUNK = 1 << 10  # pairs scored at a time: about what a core's cache holds
_FLAGS = 8  # looked at together
_NEVER = 1 << 30  # more than any product of codes


class ScreenedTopK(RunningTopK):
    """As ``RunningTopK`` of ``probes`` [Q, D], unit rows on the CPU; of equal scores the earlier row stays ahead."""

    def __init__(self, probes: Tensor, k: int, scores_of: TileScores, dots: Tensor) -> None:
        """dots: int32 memory for products, lent: at least [rows of a coded group, M]."""
        super().__init__(len(probes), k, probes.device)
        self._probes = probes
        self._wide = probes.double()
        self._off = probes.shape[1] * 2.0**-23
        self._scores_of = scores_of
        self._dots = dots
        self._coded: CodedBatch | None = None
        self._tiles = self._next_screen = 0

    def add_rows(self, tile: CodedRows, first_place: int) -> None:
        """Gallery rows [G, D] at ``first_place`` and following."""
        self._tiles += 1
        found = None
        if tile.groups and self._tiles > self._next_screen and self._full:
            found = self._by_int8(tile)
            if found is None:
                self._next_screen = self._tiles + self._tiles // 2
        probes, rows = self._by_float32(tile) if found is None else found
        if len(probes):
            self._keep(probes, rows, tile.rows, first_place)

    def _by_float32(self, tile: CodedRows) -> tuple[Tensor, Tensor]:
        """Probes and rows [n] of the pairs that may be among the best, by probe, then row."""
        scores = self._scores_of(self._probes, tile.rows)
        least = self.scores[:, -1] - self._off
        if not self._full and scores.shape[1] > self.scores.shape[1]:
            best = scores.topk(self.scores.shape[1], dim=1).values
            least = torch.maximum(least, best[:, -1] - 2 * self._off)
        some = (scores.amax(dim=1) >= least).nonzero().squeeze(1)
        scores = scores if len(some) == len(scores) else scores[some]
        probes, rows = (scores >= least[some, None]).nonzero(as_tuple=True)
        return some[probes], rows

    def _by_int8(self, tile: CodedRows) -> tuple[Tensor, Tensor] | None:
        """The same by the codes; None where they leave more than ``MOST_LEFT``."""
        if self._coded is None:
            self._coded = CodedBatch.of(self._probes, tile.groups[0].codes.shape[1])
        coded, count = self._coded, len(self._probes)
        scales, residuals = coded.scales[:count], coded.residuals[:count]
        if not bool((scales > 0.0).all()):
            return None  # a zero probe scores 0 with everyone
        padded = len(coded.scales)
        most = MOST_LEFT * padded * len(tile.rows)
        bounds = torch.full((padded,), _NEVER, dtype=torch.int32)
        found: list[tuple[Tensor, Tensor]] = []
        number = 0
        for group in tile.groups:
            dots = self._dots[: len(group.places) * padded].view(len(group.places), padded)
            torch._int_mm(group.codes, coded.codes, out=dots)
            # What scale_u * scale_v * dot must reach, then the dot alone; a group of zero rows reaches 0.
            reach = self.scores[:, -1] - residuals - group.residual * (1.0 + residuals)
            if not bool((reach > 0.0).all()):
                return None
            least = reach / scales / max(group.scale, 1e-30) * (1.0 - 1e-6)
            bounds[:count] = least.floor_().clamp_(max=_NEVER).to(torch.int32)
            flags = (dots >= bounds).view(torch.int64).view(-1).nonzero().squeeze(1)
            number += len(flags)
            if number > most:
                return None
            places = (flags[:, None] * _FLAGS + torch.arange(_FLAGS)).view(-1)
            rows, probes = places // padded, places % padded
            left = dots.view(-1)[places] >= bounds[probes]
            found.append((probes[left], group.places[rows[left]]))
        probes, rows = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._in_float32(probes, rows, tile.rows)

    def _in_float32(self, probes: Tensor, rows: Tensor, tile: Tensor) -> tuple[Tensor, Tensor]:
        """Of the pairs [n] those that float32 leaves, by probe, then row."""
        least = self.scores[:, -1] - self._off
        kept = [
            torch.linalg.vecdot(tile[j], self._probes[i]) >= least[i]
            for i, j in zip(torch.split(probes, _CHUNK), torch.split(rows, _CHUNK), strict=True)
        ]
        left = torch.cat(kept).nonzero().squeeze(1)
        order = (probes[left] * len(tile) + rows[left]).argsort()
        left = left[order]
        return probes[left], rows[left]

    @property
    def _full(self) -> bool:
        return bool(self.scores[:, -1].isfinite().all())

    def _keep(self, probes: Tensor, rows: Tensor, tile: Tensor, first_place: int) -> None:
        """Score the pairs [n], ordered by probe, then row, and merge them."""
        scores = torch.cat(
            [
                tile[j].double().mul_(self._wide[i]).sum(dim=1).float()
                for i, j in zip(torch.split(probes, _CHUNK), torch.split(rows, _CHUNK), strict=True)
            ]
        )
        better = scores > self.scores[probes, -1]
        probes, rows, scores = probes[better], rows[better], scores[better]
        if not len(probes):
            return
        some, counts = torch.unique_consecutive(probes, return_counts=True)
        owner = torch.arange(len(some)).repeat_interleave(counts)
        place = torch.arange(len(probes)) - (counts.cumsum(0) - counts)[owner]
        found = scores.new_full((len(some), int(counts.max())), -torch.inf)
        places = rows.new_full(found.shape, -1)
        found[owner, place], places[owner, place] = scores, rows + first_place
        self._merge(some, found, places)
