"""Verification on listed pairs: `.bin` sets, custom lists, and pairs of templates.

P pairs, I identities.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainer.agreement import first_rank_decides, on_first_rank
from trainer.each_rank import each_rank
from trainer.evaluation.bootstrap import Interval, PairBootstrap, PairSample
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.folds import fold_numbers
from trainer.evaluation.operating_points import OperatingPoint, operating_points
from trainer.evaluation.pair_identities import identities_of_pairs, number_equal_images
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
from trainer.evaluation.replicates import BootstrapSettings, intervals_on_ranks
from trainer.evaluation.roc import area_under, compute_roc, equal_error_rate, thin_roc
from trainer.evaluation.store import result_numbers
from trainer.evaluation.verification import VerificationResult, verify
from trainer.world import World


@dataclass(frozen=True, kw_only=True)
class Judging:
    """far: false accept rates to find thresholds for, as written ("1e-4").  step: of the checkpoint."""

    far: tuple[str, ...]
    bootstrap: BootstrapSettings
    step: int = 0


@dataclass(frozen=True, eq=False)
class PairOwners:
    """Identity of the two sides of each pair, [P] in [0, count)."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    count: int


def owners_by_pairs(
    first: NDArray[np.int64], second: NDArray[np.int64], same: NDArray[np.bool_], images: int
) -> PairOwners:
    """Owners of images [P] as far as same pairs join them: see ``pair_identities``."""
    identities = identities_of_pairs(first, second, same, images)
    return PairOwners(identities[first], identities[second], int(identities.max()) + 1)


def evaluate_bin(
    evaluator: Evaluator, module: nn.Module, judging: Judging, world: World
) -> tuple[VerificationResult, ProtocolResult] | None:
    """A `.bin` set, on all ranks: results on rank 0, None elsewhere.

    Raises:
        ConfigError: on all ranks, for an image that cannot be decoded or pairs that cannot be judged.
    """
    part = each_rank(
        world, lambda: evaluator.embed_part(module, world.rank, world.world_size), f"verification on {evaluator.name}"
    )
    parts = on_first_rank(world, part)
    result = first_rank_decides(world, lambda: evaluator.result(torch.cat(parts or [])))
    numbers = number_equal_images(evaluator.pairs.jpegs)
    same = evaluator.pairs.same
    owners = owners_by_pairs(numbers[0::2], numbers[1::2], same, int(numbers.max()) + 1)
    return judged(result, owners, judging, world)


def judge_list(
    name: str,
    scores: NDArray[np.float32] | None,
    same: NDArray[np.bool_],
    owners: PairOwners,
    judging: Judging,
    world: World,
) -> tuple[VerificationResult, ProtocolResult] | None:
    """Scored pairs, judged as a `.bin` set is; ``scores`` on rank 0 alone.

    Raises:
        ConfigError: on all ranks, where the pairs cannot be judged.
    """
    return judged(first_rank_decides(world, lambda: verify(name, _given(scores), same)), owners, judging, world)


def judged(
    result: VerificationResult, owners: PairOwners, judging: Judging, world: World
) -> tuple[VerificationResult, ProtocolResult] | None:
    """Add thresholds, intervals and curves to a result that every rank has."""
    scores, same = result.scores.astype(np.float64), result.same
    sample = PairSample(scores, same, owners.first, owners.second, owners.count, fold_numbers(same))
    points, intervals = _points(sample, judging, world)
    if not world.is_first:
        return None
    confidence = judging.bootstrap.confidence
    numbers = result_numbers(judging.step, result) | {
        "protocol": "pairs",
        "identities": owners.count,
        "operating_points": point_numbers(points, intervals),
        "intervals": {
            name: interval_of(intervals, name) for name in ("accuracy_mean", "equal_error_rate") if name in intervals
        },
        "bootstrap": judging.bootstrap.numbers(),
    }
    rates = TextTable(
        f"{result.name}: {owners.count:,} identities",
        ("", "%", interval_heading(confidence)),
        (
            ("accuracy", percent(result.accuracy_mean), interval_text(intervals.get("accuracy_mean"))),
            ("equal error rate", percent(result.equal_error_rate), interval_text(intervals.get("equal_error_rate"))),
        ),
    )
    table = point_table(points, intervals, confidence, f"{result.name}: thresholds")
    curve = ErrorCurve("verification", result.name, result.roc_far, result.roc_tar)
    return result, ProtocolResult(result.name, "pairs", numbers, (rates, table), (curve,))


def judge_templates(
    name: str,
    scores: NDArray[np.float32] | None,
    same: NDArray[np.bool_],
    owners: PairOwners,
    templates: int,
    judging: Judging,
    world: World,
) -> ProtocolResult | None:
    """Template verification (1:1): TAR at FAR, thresholds, EER; ``scores`` on rank 0 alone. A collective."""
    everyones = first_rank_decides(world, lambda: _given(scores))
    exact = everyones.astype(np.float64)
    sample = PairSample(exact, same, owners.first, owners.second, owners.count)
    points, intervals = _points(sample, judging, world)
    if not world.is_first:
        return None
    roc = compute_roc(exact, same)
    far, tar = thin_roc(roc)
    numbers: dict[str, Any] = {
        "step": judging.step,
        "name": name,
        "protocol": "templates 1:1",
        "templates": templates,
        "pairs": len(same),
        "same_pairs": int(same.sum()),
        "identities": owners.count,
        "auc": area_under(roc),
        "equal_error_rate": equal_error_rate(roc),
        "operating_points": point_numbers(points, intervals),
        "intervals": {"equal_error_rate": interval_of(intervals, "equal_error_rate")},
        "bootstrap": judging.bootstrap.numbers(),
        "roc": {"far": far.tolist(), "tar": tar.tolist()},
    }
    title = (
        f"{name}: 1:1, {templates:,} templates of {owners.count:,} identities, {len(same):,} pairs, "
        f"EER {percent(numbers['equal_error_rate'])}%"
    )
    table = point_table(points, intervals, judging.bootstrap.confidence, title)
    curve = ErrorCurve("verification", name, far, tar)
    return ProtocolResult(name, "templates 1:1", numbers, (table,), (curve,))


def _points(sample: PairSample, judging: Judging, world: World) -> tuple[list[OperatingPoint], dict[str, Interval]]:
    points = operating_points(sample.scores, sample.same, judging.far)
    measurable = [point.target for point in points if point.tar is not None]
    intervals = {}
    if judging.bootstrap.replicates:
        bootstrap = PairBootstrap(sample, measurable, seed=judging.bootstrap.seed)
        intervals = intervals_on_ranks(judging.bootstrap, bootstrap.replicate, world)
    return points, intervals


def _given(scores: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert scores is not None, "rank 0 has the scores"
    return scores
