"""MegaFace's challenge 1 on anyone's probes and distractors.

P probes, N distractors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.agreement import first_rank_decides
from trainer.errors import ConfigError
from trainer.evaluation.bootstrap import identity_weights, weighted_share
from trainer.evaluation.distractors import RANKS, DistractorScores, MegaFaceCounts, count_hits, score_distractors
from trainer.evaluation.extraction import Extractor
from trainer.evaluation.face_sets import FaceSet
from trainer.evaluation.operating_points import OperatingPoint
from trainer.evaluation.pair_protocol import Judging
from trainer.evaluation.protocol_result import (
    ErrorCurve,
    ProtocolResult,
    TextTable,
    interval_heading,
    interval_of,
    interval_text,
    percent,
    point_numbers,
    point_table,
)
from trainer.evaluation.replicates import intervals_on_ranks
from trainer.world import World


def evaluate_distractors(
    name: str,
    probes: FaceSet,
    distractors: FaceSet,
    sizes: Sequence[int],
    extractor: Extractor,
    judging: Judging,
    world: World,
    device: torch.device,
    *,
    seed: int = 0,
) -> ProtocolResult | None:
    """Rank rates at each number of distractors, and TAR at FAR with the largest, on rank 0. A collective.

    Raises:
        ConfigError: on all ranks: more distractors asked for than there are, no person with two photos, or images that
            are missing or cannot be used.
    """
    count = len(distractors.source)
    if not sizes or min(sizes) < 1 or max(sizes) > count:
        raise ConfigError(f"{name}: {max(sizes, default=0)} distractors are asked for, there are {count}")
    by_identity = np.argsort(probes.identities, kind="stable")
    identities = probes.identities[by_identity]
    if not (np.diff(identities) == 0).any():
        raise ConfigError(f"{name}: no person has two photos among the probes; a search needs one to find")
    ordered = sorted(set(sizes))
    # In random order, the largest number of them: what is not asked for is not embedded.
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(count)[: ordered[-1]]
    probe_rows = extractor.rows(probes.source, by_identity, f"{name}: probes")
    rows = extractor.rows(distractors.source, chosen, f"{name}: distractors")
    scores = score_distractors(probe_rows, rows, ordered, max(RANKS), device=device)
    embeddings = probe_rows.on_first_rank()

    def count_on_first() -> tuple[DistractorScores, MegaFaceCounts]:
        assert scores is not None
        assert embeddings is not None
        return scores, count_hits(embeddings, identities, scores.best)

    found, counts = first_rank_decides(world, count_on_first)
    points = found.histogram.operating_points(counts.genuine, judging.far)
    owner = _owners_of_pairs(counts)

    def replicate(number: int) -> dict[str, float]:
        drawn = identity_weights(len(counts.pairs), judging.bootstrap.seed, number)
        rates = {
            f"{size} rank {rank}": weighted_share(counts.hits[place, column], counts.pairs, drawn)
            for place, size in enumerate(ordered)
            for column, rank in enumerate(RANKS)
        }
        weight = drawn[owner].astype(np.float64)
        for point in points:
            if point.threshold is not None and weight.sum():
                accepted = np.dot(weight, counts.genuine >= point.threshold)
                rates[f"far {point.target}"] = float(accepted / weight.sum())
            elif point.threshold is not None:
                rates[f"far {point.target}"] = float("nan")
        return rates

    intervals = intervals_on_ranks(judging.bootstrap, replicate, world)
    if not world.is_first:
        return None
    return _result(name, len(identities), ordered, found, counts, points, intervals, judging)


def _owners_of_pairs(counts: MegaFaceCounts) -> NDArray[np.int64]:
    """Identity of each score in ``counts.genuine``."""
    return np.repeat(np.arange(len(counts.pairs)), counts.pairs // 2)


def _result(
    name: str,
    probes: int,
    sizes: Sequence[int],
    found: DistractorScores,
    counts: MegaFaceCounts,
    points: list[OperatingPoint],
    intervals: dict[str, tuple[float, float]],
    judging: Judging,
) -> ProtocolResult:
    total = int(counts.pairs.sum())
    rates = counts.hits.sum(axis=2) / total
    far, tar = found.histogram.curve(counts.genuine)
    people = int(np.count_nonzero(counts.pairs))
    numbers: dict[str, Any] = {
        "step": judging.step,
        "name": name,
        "protocol": "identification with distractors",
        "probes": probes,
        "identities": people,
        "searches": total,
        "distractors": sizes[-1],
        "different_pairs": found.histogram.total,
        "rank": {
            str(size): {
                str(rank): {
                    "rate": float(rates[place, column]),
                    "interval": interval_of(intervals, f"{size} rank {rank}"),
                }
                for column, rank in enumerate(RANKS)
            }
            for place, size in enumerate(sizes)
        },
        "operating_points": point_numbers(points, intervals),
        "bootstrap": judging.bootstrap.numbers(),
        "roc": {"far": far.tolist(), "tar": tar.tolist()},
    }
    confidence = judging.bootstrap.confidence
    heading = [part for rank in RANKS for part in (f"rank-{rank} %", interval_heading(confidence))]
    rows = []
    for place, size in enumerate(sizes):
        cells = [f"{size:,}"]
        for column, rank in enumerate(RANKS):
            cells += [percent(float(rates[place, column])), interval_text(intervals.get(f"{size} rank {rank}"))]
        rows.append(tuple(cells))
    title = f"{name}: {total:,} searches by {probes:,} probes of {people:,} people"
    verification = f"{name}: verification, {found.histogram.total:,} different pairs (thresholds in steps of 2^-19)"
    curves = [ErrorCurve("verification", name, far, tar)]
    curves += [
        ErrorCurve("sizes", f"rank {rank}", np.array(sizes, dtype=np.float64), rates[:, column])
        for column, rank in enumerate(RANKS)
    ]
    return ProtocolResult(
        name,
        "identification with distractors",
        numbers,
        (
            TextTable(title, ("distractors", *heading), tuple(rows)),
            point_table(points, intervals, confidence, verification),
        ),
        tuple(curves),
    )
