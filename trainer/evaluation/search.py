"""Every probe against a gallery that is split over the ranks.

Shapes: P probes, Q probes of a block, K candidates kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.agreement import on_first_rank
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.evaluation.tiled_top_k import PROBE_ROWS, RunningTopK, TileScores, merge_top_k

# Told of each tile: the global rows of its probes and of its gallery rows, and the scores [q, g].
Watcher = Callable[[range, range, Tensor], None]


@dataclass(frozen=True, eq=False)
class Candidates:
    """For each of P probes its best gallery rows, best first. scores: [P, K], -inf where the gallery is smaller;
    rows: [P, K], -1 there.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


def search(
    probes: ShardedRows, gallery: ShardedRows, k: int, *, device: torch.device, watch: Watcher | None = None
) -> Candidates | None:
    """The ``k`` best gallery rows of each probe, on rank 0; None elsewhere. A collective.

    Probes are broadcast some blocks at a time; every rank compares them with its own gallery rows, tile by tile, and
    sends its best. A rank holds its part of both, one block and one tile: 4 D (N / W + 4096) + 8 MiB bytes.
    """
    scores_of = TileScores(device)
    found: list[tuple[Tensor, Tensor]] = []
    local = [(rows, block.to(device)) for rows, block in gallery.local_blocks()]
    for probe_rows, block in probes.all_groups(PROBE_ROWS):
        parts = []
        block_on_device = block.to(device)
        for low in range(0, len(block), PROBE_ROWS):
            part = block_on_device[low : low + PROBE_ROWS]
            here = range(probe_rows.start + low, probe_rows.start + low + len(part))
            best = RunningTopK(len(part), k, device)
            for rows, tile in local:
                scores = scores_of(part, tile)
                best.add(scores, rows.start)
                if watch is not None:
                    watch(here, rows, scores)
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
