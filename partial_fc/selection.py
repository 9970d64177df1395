"""Which centers of a class shard take part in a step: all of them, or the positives and a seeded draw.

Shape letters: N global batch, M samples whose own center lives here, R rows of the class shard, S rows taking part,
P rows that are some sample's own.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.class_shard import ClassShard


@dataclass(frozen=True)
class Selection:
    """The rows of one class shard that take part in a step.

    size: S. rows: [S] int64, sorted, of the shard; None means all R. samples, places: both [M] int64, the samples
    whose own center lives here and its place among the S rows. weights: [S] float32, the inverse of the
    probability with which each row was drawn (1 for positives, which are always in); None means all 1.
    """

    size: int
    rows: Tensor | None
    samples: Tensor
    places: Tensor
    weights: Tensor | None


def select_all(shard: ClassShard, identities: Tensor) -> Selection:
    """All rows of the shard; identities: [N] int64 global class ids."""
    samples, rows = shard.local_rows(identities)
    return Selection(len(shard), None, samples, rows, None)


def select_sample(shard: ClassShard, identities: Tensor, *, sample_rate: float, seed: int, step: int) -> Selection:
    """The P positives of the global batch that live here, filled up with negatives to S = round(sample_rate * R).

    Negatives are drawn uniformly without replacement, S - P of the other R - P rows: a pure function of (seed,
    step, first class of the shard) and the positives, on one kind of device. With the same three numbers, other
    positives change the draw by at most P rows. With P >= S only the positives take part.
    A drawn row's weight is (R - P) / (S - P): 1/r for sample rate r, corrected for the rows that are always in.
    """
    samples, own_rows = shard.local_rows(identities)
    positives = torch.unique(own_rows)
    total, kept = len(shard), len(positives)
    size = max(round(sample_rate * total), kept)
    if size >= total:
        return Selection(total, None, samples, own_rows, None)
    rows = _lowest_keys(positives, size, total, _draw_seed(seed, step, shard.start))
    weights = None
    if size > kept:
        weights = torch.full((size,), (total - kept) / (size - kept), device=rows.device)
        weights[torch.searchsorted(rows, positives)] = 1.0
    return Selection(size, rows, samples, torch.searchsorted(rows, own_rows), weights)


def _lowest_keys(positives: Tensor, size: int, total: int, draw_seed: int) -> Tensor:
    """Every row draws a key, positives draw below all others; the ``size`` lowest keys are in, rows sorted."""
    generator = torch.Generator(device=positives.device).manual_seed(draw_seed)
    keys = torch.rand(total, dtype=torch.float64, device=positives.device, generator=generator)
    keys[positives] = -1.0
    return torch.topk(keys, size, largest=False, sorted=False).indices.sort().values


def _draw_seed(seed: int, step: int, start: int) -> int:
    digest = hashlib.blake2b(f"negatives:{seed}:{step}:{start}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
