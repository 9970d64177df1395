"""The K best of a gallery for each of many probes, without ever holding all scores.

Shapes: Q probes, G gallery rows of a tile, D embedding size, K kept.
"""

import torch
from torch import Tensor

PROBE_ROWS = 512  # of a tile: 8 MiB of scores with 4096 gallery rows


class RunningTopK:
    """The K largest scores of each of Q probes so far, falling, and where they were met.

    scores: [Q, K] float32, -inf where fewer than K were met.  places: [Q, K] int64, -1 there.
    Of equal scores the one of the earlier tile stays ahead.
    """

    def __init__(self, probes: int, k: int, device: torch.device) -> None:
        self.scores = torch.full((probes, k), -torch.inf, device=device)
        self.places = torch.full((probes, k), -1, dtype=torch.int64, device=device)

    def add(self, scores: Tensor, first_place: int) -> None:
        """scores: [Q, G] of the gallery rows ``first_place`` and following."""
        worst = self.scores[:, -1]
        # Soon most rows of most tiles have nothing better: one pass over the tile finds those that have.
        rows = (scores.amax(dim=1) > worst).nonzero().squeeze(1)
        if not len(rows):
            return
        tile = scores if len(rows) == len(scores) else scores[rows]
        found, columns = tile.topk(min(self.scores.shape[1], tile.shape[1]), dim=1)
        self._merge(rows, found, columns + first_place)

    def _merge(self, rows: Tensor, found: Tensor, places: Tensor) -> None:
        k = self.scores.shape[1]
        scores = torch.cat((self.scores[rows], found), dim=1)
        places = torch.cat((self.places[rows], places), dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        self.scores[rows] = scores[:, :k]
        self.places[rows] = torch.where(scores == -torch.inf, -1, places.gather(1, order))[:, :k]


def merge_top_k(parts: list[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The K best of several top lists ([Q, any], falling) of parts of a gallery, in the order of the parts."""
    scores = torch.cat([scores for scores, _ in parts], dim=1)
    places = torch.cat([places for _, places in parts], dim=1)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :k], places.gather(1, order)[:, :k]


class TileScores:
    """Cosines of probes and gallery rows, a tile at a time, into one buffer."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffer = torch.empty(0, device=device)

    def __call__(self, probes: Tensor, gallery: Tensor) -> Tensor:
        """[Q, D] and [G, D] -> [Q, G]; the next call overwrites it."""
        size = len(probes) * len(gallery)
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, device=self._device)
        tile = self._buffer[:size].view(len(probes), len(gallery))
        return torch.mm(probes, gallery.T, out=tile)
