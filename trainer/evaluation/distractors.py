"""Identification among distractors, as MegaFace's challenge 1 defines it (Kemelmacher-Shlizerman et al., CVPR 2016).

Probes are photos of known people, several each; distractors are of strangers. For every ordered pair (i, j) of photos
of one person, j is put among n distractors and i searches them: its rank is 1 + distractors that score as high as
(i, j) or higher. The rank-R rate is the share of pairs of rank <= R. Distractors are taken in one random order by seed,
the first n of it, so a larger set contains the smaller ones. Verification: same pairs are those of the probes,
different pairs all of a probe and a distractor.

P probes, N distractors, sizes n_1 < ... < n_s, K the largest rank asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.agreement import on_first_rank
from trainer.evaluation.roc import FloatArray
from trainer.evaluation.score_histogram import ScoreHistogram
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.evaluation.tiled_top_k import PROBE_ROWS, RunningTopK, TileScores, merge_top_k

RANKS = (1, 10)


@dataclass(frozen=True, eq=False)
class DistractorScores:
    """best: [s, P, K] the highest scores of each probe among the first n distractors, falling, -inf where n < K.
    histogram: of all P x N scores.
    """

    best: NDArray[np.float32]
    histogram: ScoreHistogram


@dataclass(frozen=True, eq=False)
class MegaFaceCounts:
    """hits: [s, ranks, I] ordered pairs found at each size and rank, of each identity.  pairs: [I] ordered pairs.
    genuine: scores of the unordered same pairs.
    """

    hits: NDArray[np.int64]
    pairs: NDArray[np.int64]
    genuine: FloatArray


def default_sizes(distractors: int) -> tuple[int, ...]:
    """10, 100, ... as far as there are distractors, and all of them."""
    sizes = [10**power for power in range(1, 19) if 10**power < distractors]
    return (*sizes, distractors)


def score_distractors(
    probes: ShardedRows, distractors: ShardedRows, sizes: Sequence[int], k: int, *, device: torch.device
) -> DistractorScores | None:
    """Every probe against every distractor, on rank 0; None elsewhere. A collective.

    Distractor rows are in the random order. As in ``search``, probes pass by and distractors stay where they are.
    """
    scores_of, histogram = TileScores(device), ScoreHistogram()
    local = [(rows, block.to(device)) for rows, block in distractors.local_blocks()]
    found: list[Tensor] = []
    for _, block in probes.all_groups(PROBE_ROWS):
        parts = []
        for part in torch.split(block.to(device), PROBE_ROWS):
            # Of each segment between two sizes alone; joined afterwards.
            segments = [RunningTopK(len(part), k, device) for _ in sizes]
            for rows, tile in local:
                scores = scores_of(part, tile)
                for segment, (start, stop) in zip(segments, zip((0, *sizes), sizes, strict=False), strict=True):
                    low, high = max(start, rows.start), min(stop, rows.stop)
                    if low < high:
                        segment.add(scores[:, low - rows.start : high - rows.start], low)
                counted = min(sizes[-1], rows.stop) - rows.start
                if counted > 0:
                    histogram.add(scores[:, :counted])
            parts.append(torch.stack([segment.scores.cpu() for segment in segments]))
        gathered = on_first_rank(probes.world, torch.cat(parts, dim=1))
        if gathered is not None:
            found.append(_cumulative(gathered, k))
    counts = on_first_rank(probes.world, histogram.counts)
    if counts is None:
        return None
    histogram.counts = torch.stack(counts).sum(dim=0)
    return DistractorScores(torch.cat(found, dim=1).numpy(), histogram)


def _cumulative(parts: Sequence[Tensor], k: int) -> Tensor:
    """Best of each segment by rank [s, Q, K] -> best up to each size, of all ranks."""
    of_sizes = []
    so_far: list[tuple[Tensor, Tensor]] = []
    for segment in range(len(parts[0])):
        pieces = so_far + [(part[segment], torch.zeros_like(part[segment])) for part in parts]
        so_far = [merge_top_k(pieces, k)]
        of_sizes.append(so_far[0][0])
    return torch.stack(of_sizes)


def count_hits(
    embeddings: Tensor, identities: NDArray[np.int64], best: NDArray[np.float32], ranks: Sequence[int] = RANKS
) -> MegaFaceCounts:
    """embeddings: [P, D] of the probes, rows of one identity beside each other.  identities: [P], ascending.

    A rank counts the distractors of equal score against the probe. An identity with one photo has no pairs.
    """
    starts = np.append(np.flatnonzero(np.diff(identities, prepend=identities[:1] - 1)), len(identities))
    hits = np.zeros((len(best), len(ranks), len(starts) - 1), dtype=np.int64)
    pairs = np.zeros(len(starts) - 1, dtype=np.int64)
    genuine = []
    for number, (start, stop) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        photos = stop - start
        rows = embeddings[start:stop]
        scores = (rows @ rows.T).numpy()
        apart = ~np.eye(photos, dtype=np.bool_)
        pairs[number] = photos * (photos - 1)
        genuine.append(scores[np.triu(apart)])
        for size, best_of_size in enumerate(best):
            # [photos, photos]: distractors ahead of each pair, as far as K tell
            ahead = (best_of_size[start:stop, None, :] >= scores[:, :, None]).sum(axis=2)
            for place, rank in enumerate(ranks):
                hits[size, place, number] = np.count_nonzero((ahead < rank) & apart)
    return MegaFaceCounts(hits, pairs, np.concatenate(genuine).astype(np.float64))
