"""1:N with two galleries of different people: every probe searches both, and is a stranger to one of them at least.

P probes, S subjects of probes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.agreement import first_rank_decides
from trainer.evaluation.bootstrap import Interval, identity_weights
from trainer.evaluation.ijb_files import Subjects
from trainer.evaluation.open_set import (
    FPIR_TARGETS,
    LIST_LENGTH,
    RANKS,
    OpenSetPoint,
    ProbeOutcomes,
    open_set_curve,
    open_set_points,
    probe_outcomes,
    rank_rates,
)
from trainer.evaluation.pair_protocol import Judging
from trainer.evaluation.protocol_result import (
    ErrorCurve,
    ProtocolResult,
    TextTable,
    interval_heading,
    interval_of,
    interval_text,
    percent,
)
from trainer.evaluation.replicates import intervals_on_ranks
from trainer.evaluation.search import Candidates, search
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.evaluation.template_pooling import TemplateImages
from trainer.world import World

AVERAGE, MERGED = "average", "merged"


def evaluate_identification(
    name: str,
    galleries: Sequence[Subjects],
    probes: Subjects,
    templates: TemplateImages,
    rows: ShardedRows,
    judging: Judging,
    world: World,
    device: torch.device,
) -> ProtocolResult | None:
    """Search each gallery alone, for the open-set and closed-set rates and their average over the galleries, as the
    protocol says; and both merged, closed set, as InsightFace's ijb_1n.py does. On rank 0. A collective.
    """
    probe_rows = rows.choose(templates.find(probes.templates))
    merged = Subjects(
        MERGED,
        np.concatenate([gallery.templates for gallery in galleries]),
        np.concatenate([gallery.subjects for gallery in galleries]),
    )
    found: dict[str, ProbeOutcomes | None] = {}
    for gallery in (*galleries, merged):
        gallery_rows = rows.choose(templates.find(gallery.templates))
        candidates = search(probe_rows, gallery_rows, LIST_LENGTH, device=device)
        found[gallery.name] = None if candidates is None else _outcomes(candidates, probes, gallery)
    outcomes = {key: value for key, value in first_rank_decides(world, lambda: found).items() if value is not None}
    subjects, subject = np.unique(probes.subjects, return_inverse=True)

    def replicate(number: int) -> dict[str, float]:
        drawn = identity_weights(len(subjects), judging.bootstrap.seed, number)[subject]
        chosen = np.repeat(np.arange(len(drawn)), drawn)  # a probe whose subject is drawn twice stands there twice
        return _rates({key: _choose(value, chosen) for key, value in outcomes.items()})

    intervals = intervals_on_ranks(judging.bootstrap, replicate, world)
    if not world.is_first:
        return None
    return _result(name, outcomes, intervals, {g.name: len(g.templates) for g in (*galleries, merged)}, judging)


def _outcomes(found: Candidates, probes: Subjects, gallery: Subjects) -> ProbeOutcomes:
    candidates = np.where(found.rows >= 0, gallery.subjects[found.rows], -1)
    return probe_outcomes(found.scores, candidates, probes.subjects, gallery.subjects)


def _choose(outcomes: ProbeOutcomes, chosen: NDArray[np.int64]) -> ProbeOutcomes:
    return ProbeOutcomes(outcomes.mated[chosen], outcomes.rank[chosen], outcomes.mate[chosen], outcomes.top[chosen])


def _rates(outcomes: Mapping[str, ProbeOutcomes]) -> dict[str, float]:
    """ "G1 rank 1", "G1 fpir 0.01", ..., "average ..."; NaN for what these probes cannot measure."""
    rates: dict[str, float] = {}
    for gallery, found in outcomes.items():
        mated = bool(found.mated.any())
        for rank in RANKS:
            rates[f"{gallery} rank {rank}"] = rank_rates(found, (rank,))[rank] if mated else float("nan")
        for point in open_set_points(found) if gallery != MERGED else ():
            measured = mated and point.tpir is not None
            rates[f"{gallery} fpir {point.target}"] = float(point.tpir or 0.0) if measured else float("nan")
    alone = [gallery for gallery in outcomes if gallery != MERGED]
    for key in (*(f"rank {rank}" for rank in RANKS), *(f"fpir {target}" for target in FPIR_TARGETS)):
        rates[f"{AVERAGE} {key}"] = float(np.mean([rates[f"{gallery} {key}"] for gallery in alone]))
    return rates


def _result(
    name: str,
    outcomes: Mapping[str, ProbeOutcomes],
    intervals: dict[str, Interval],
    sizes: Mapping[str, int],
    judging: Judging,
) -> ProtocolResult:
    rates = _rates(outcomes)
    points = {gallery: open_set_points(found) for gallery, found in outcomes.items() if gallery != MERGED}
    curves = {gallery: open_set_curve(outcomes[gallery]) for gallery in points}
    numbers: dict[str, Any] = {
        "step": judging.step,
        "name": name,
        "protocol": "identification 1:N",
        "probes": len(next(iter(outcomes.values())).mated),
        "galleries": {
            gallery: {
                "templates": sizes[gallery],
                "mated_probes": int(found.mated.sum()),
                "nonmated_probes": int((~found.mated).sum()),
                "rank": {str(rank): _measured(rates, intervals, f"{gallery} rank {rank}") for rank in RANKS},
                "open_set": _open_set(points.get(gallery, []), gallery, rates, intervals),
                "curve": {"fpir": curves[gallery][0].tolist(), "fnir": curves[gallery][1].tolist()}
                if gallery in curves
                else None,
            }
            for gallery, found in outcomes.items()
        },
        AVERAGE: {
            "rank": {str(rank): _measured(rates, intervals, f"{AVERAGE} rank {rank}") for rank in RANKS},
            "tpir": {target: _measured(rates, intervals, f"{AVERAGE} fpir {target}") for target in FPIR_TARGETS},
        },
        "list_length": LIST_LENGTH,
        "bootstrap": judging.bootstrap.numbers(),
    }
    drawn = [ErrorCurve("open set", f"{name} {gallery}", fpir, 1 - fnir) for gallery, (fpir, fnir) in curves.items()]
    return ProtocolResult(
        name, "identification 1:N", numbers, _tables(name, rates, points, intervals, numbers, judging), tuple(drawn)
    )


def _measured(rates: Mapping[str, float], intervals: dict[str, Interval], key: str) -> dict[str, Any]:
    rate = rates[key]
    return {"rate": None if np.isnan(rate) else rate, "interval": interval_of(intervals, key)}


def _open_set(
    points: Sequence[OpenSetPoint], gallery: str, rates: Mapping[str, float], intervals: dict[str, Interval]
) -> dict[str, Any]:
    return {
        point.target: {
            "threshold": point.threshold,
            "fpir": point.fpir,
            "tpir": point.tpir,
            "fnir": None if point.tpir is None else 1 - point.tpir,
            "false_positives": point.false_positives,
            "tpir_interval": interval_of(intervals, f"{gallery} fpir {point.target}"),
        }
        for point in points
    }


def _tables(
    name: str,
    rates: Mapping[str, float],
    points: Mapping[str, Sequence[OpenSetPoint]],
    intervals: dict[str, Interval],
    numbers: Mapping[str, Any],
    judging: Judging,
) -> tuple[TextTable, ...]:
    heading = interval_heading(judging.bootstrap.confidence)
    galleries = [*points, AVERAGE, MERGED]
    closed = [
        (gallery, *_cells(rates, intervals, [f"{gallery} rank {rank}" for rank in RANKS])) for gallery in galleries
    ]
    opened = [
        (
            gallery,
            point.target,
            "-" if point.threshold is None else f"{point.threshold:.6f}",
            str(point.false_positives),
            *_cells(rates, intervals, [f"{gallery} fpir {point.target}"]),
            "-" if point.tpir is None else percent(1 - point.tpir),
        )
        for gallery, of_gallery in points.items()
        for point in of_gallery
    ]
    for target in FPIR_TARGETS:
        rate = rates[f"{AVERAGE} fpir {target}"]
        cells = _cells(rates, intervals, [f"{AVERAGE} fpir {target}"])
        opened.append((AVERAGE, target, "", "", *cells, "-" if np.isnan(rate) else percent(1 - rate)))
    ranks = [part for rank in RANKS for part in (f"rank-{rank} %", heading)]
    return (
        TextTable(f"{name}: closed set, {numbers['probes']:,} probes", ("gallery", *ranks), tuple(closed)),
        TextTable(
            f"{name}: open set",
            ("gallery", "FPIR <=", "threshold", "false positives", "TPIR %", heading, "FNIR %"),
            tuple(opened),
        ),
    )


def _cells(rates: Mapping[str, float], intervals: dict[str, Interval], keys: Sequence[str]) -> list[str]:
    cells = []
    for key in keys:
        cells += [percent(None if np.isnan(rates[key]) else rates[key]), interval_text(intervals.get(key))]
    return cells
