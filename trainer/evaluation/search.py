"""Every probe against a gallery that is split over the ranks.

Shapes: P probes, Q probes of a block, K candidates kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.agreement import on_first_rank
from trainer.evaluation.coded_rows import GROUP, CodedRows
from trainer.evaluation.screened_top_k import ScreenedTopK
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.evaluation.tiled_top_k import PROBE_ROWS, RunningTopK, TileScores, merge_top_k

MANY_PROBES = 256  # from which on coding the gallery, which takes as long as comparing some 100 of them, pays
WIDE = 128  # embeddings from which on products take longer than looking at them


@dataclass(frozen=True, eq=False)
class Candidates:
    """For each of P probes its best gallery rows, best first. scores: [P, K], -inf where the gallery is smaller;
    rows: [P, K], -1 there.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


def search(probes: ShardedRows, gallery: ShardedRows, k: int, *, device: torch.device) -> Candidates | None:
    """The ``k`` best gallery rows of each probe, on rank 0; None elsewhere. A collective.

    Probes are broadcast some blocks at a time; every rank compares them with its own gallery rows, tile by tile, and
    sends its best. A rank holds its part of both, one block and one tile: 4 D (N / W + 4096) + 9 MiB bytes, and
    (D + 8) G / W of codes of the G gallery rows where there are many probes.

    On the CPU a score is the float64 sum rounded to float32, whatever the tiles: see ``screened_top_k``.
    """
    scores_of = TileScores(device)
    found: list[tuple[Tensor, Tensor]] = []
    coding = device.type == "cpu" and probes.blocks.total >= MANY_PROBES and gallery.local.shape[1] >= WIDE
    local = [
        (rows, CodedRows.of(block) if coding else CodedRows(block.to(device))) for rows, block in gallery.local_blocks()
    ]
    dots = torch.empty(GROUP * PROBE_ROWS if coding else 0, dtype=torch.int32)
    for _, block in probes.all_groups(PROBE_ROWS):
        parts = []
        block_on_device = block.to(device)
        for low in range(0, len(block), PROBE_ROWS):
            part = block_on_device[low : low + PROBE_ROWS]
            best = _best_of(part, local, k, scores_of, dots)
            parts.append((best.scores.cpu(), best.places.cpu()))
        mine = torch.cat([scores for scores, _ in parts]), torch.cat([places for _, places in parts])
        gathered = on_first_rank(probes.world, mine)
        if gathered is not None:
            found.append(merge_top_k(gathered, k))
    if not probes.world.is_first:
        return None
    return Candidates(
        torch.cat([scores for scores, _ in found]).numpy(), torch.cat([rows for _, rows in found]).numpy()
    )


def _best_of(
    part: Tensor, tiles: Sequence[tuple[range, CodedRows]], k: int, scores_of: TileScores, dots: Tensor
) -> RunningTopK:
    if part.device.type == "cpu":
        screened = ScreenedTopK(part, k, scores_of, dots)
        for rows, tile in tiles:
            screened.add_rows(tile, rows.start)
        return screened
    best = RunningTopK(len(part), k, part.device)
    for rows, tile in tiles:
        best.add(scores_of(part, tile.rows), rows.start)
    return best
