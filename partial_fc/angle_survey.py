"""How the angles of a batch are distributed, not only their means: read by people, so every few steps are enough.

Shape letters: C classes, B this rank's batch, N global batch, D embedding size, S sampled centers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.head import PartialFC
from partial_fc.tiled import normalize_rows

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 4096  # over [0, pi]: quantiles to 0.0004 rad
SAMPLED_CENTERS = 256  # of all classes, at even distances
SAMPLED_EMBEDDINGS = 128  # of the global batch


@dataclass(frozen=True)
class AngleSurvey:
    """positive: quantiles of the angles to the own centers; negative: to a sample of all others; rad, in the order of
    ``QUANTILES``, NaN where there is nothing to measure. embedding_norm: mean length over the global batch.
    """

    positive: tuple[float, ...]
    negative: tuple[float, ...]
    embedding_norm: float


@torch.no_grad()
def survey_angles(head: PartialFC, embeddings: Tensor, identities: Tensor) -> AngleSurvey:
    """[B, D] embeddings, [B] int64 identities -> the same survey on every rank; all ranks call it together.

    Costs one all-gather of the batch, a product of some 256 centers with 128 embeddings, and one all-reduce of
    64 KiB. The centers stay as they are.
    """
    collectives = head.collectives
    sizes = collectives.batch_sizes(len(embeddings), embeddings.device)
    everyone, all_identities = collectives.gather_batch(embeddings.detach().float(), identities, sizes)
    unit = normalize_rows(everyone)[0]
    samples, rows = head.class_shard.local_rows(all_identities)
    positive = torch.linalg.vecdot(_unit_centers(head, rows), unit[samples])
    sampled = _sampled_rows(head, unit.device)
    few = torch.arange(0, len(unit), max(1, len(unit) // SAMPLED_EMBEDDINGS), device=unit.device)
    cosines = _unit_centers(head, sampled) @ unit[few].T
    others = (sampled + head.class_shard.start)[:, None] != all_identities[few][None, :]
    counts = torch.stack([_histogram(positive), _histogram(cosines[others])])
    counts = collectives.sum(counts)
    lengths = everyone.norm(dim=1, dtype=torch.float64)
    norm = float(lengths.mean()) if len(lengths) else math.nan
    return AngleSurvey(_quantiles(counts[0]), _quantiles(counts[1]), norm)


def _sampled_rows(head: PartialFC, device: torch.device) -> Tensor:
    """Rows of this shard whose global class id is a multiple of one stride: the same centers at any world size."""
    stride = max(1, head.num_classes // SAMPLED_CENTERS)
    return torch.arange(-head.class_shard.start % stride, len(head.class_shard), stride, device=device)


def _unit_centers(head: PartialFC, rows: Tensor) -> Tensor:
    if head.rows is None:
        return normalize_rows(head.read_rows(rows))[0]
    unit = torch.empty(len(rows), head.embedding_dim, device=rows.device)
    head.rows.unit_rows(rows, 0, unit, unit.new_empty(len(rows)))
    return unit


def _histogram(cosines: Tensor) -> Tensor:
    """[BINS] float64 counts of the angles; what is not finite is left out."""
    angles = torch.arccos(cosines[cosines.isfinite()].clamp(-1.0, 1.0))
    places = (angles * (BINS / math.pi)).long().clamp_(0, BINS - 1)
    return torch.bincount(places, minlength=BINS).double()


def _quantiles(counts: Tensor) -> tuple[float, ...]:
    """Angles below which the shares ``QUANTILES`` lie, on straight lines within a bin."""
    total = float(counts.sum())
    if total == 0.0:
        return (math.nan,) * len(QUANTILES)
    cumulative = counts.cumsum(0).cpu()
    wanted = torch.tensor(QUANTILES, dtype=torch.float64) * total
    places = torch.searchsorted(cumulative, wanted).clamp_(max=BINS - 1)
    inside = counts.cpu()[places]
    below = cumulative[places] - inside
    parts = (wanted - below) / inside.clamp_min(1e-300)
    return tuple(((places + parts.clamp(0.0, 1.0)) * (math.pi / BINS)).tolist())
