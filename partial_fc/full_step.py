"""A step of SFace over all centers: measure, decide, then screen or score everything.

Shape letters: N global batch, D embedding size.
"""

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from partial_fc.center_rows import CenterRows
from partial_fc.dense_pass import dense_pass
from partial_fc.drop_sample import DROP_SUMS, LEVELS, DropSums, measure_drop, sample_rows
from partial_fc.full_batch import FullBatch, full_batch
from partial_fc.scored_step import Estimate, ScoredStep
from partial_fc.screened_pass import screened_pass
from partial_fc.sface import SFace
from partial_fc.tolerance import Decision, ToleranceControl

if TYPE_CHECKING:
    from partial_fc.head import PartialFC

FIRST_LEVEL = 24  # 2^-12 at the tolerance 1e-3, an octave lower for half the tolerance: where the first step measures
DENSE_PATIENCE = 4  # in a dense phase only every so many steps look whether it is over
FEWEST_SCREENED = 2048  # classes below which scoring every pair costs no more than choosing


def take_full_step(
    head: "PartialFC", rows: CenterRows, unit: Tensor, inverse: Tensor, identities: Tensor, *, with_gradient: bool
) -> ScoredStep:
    """Loss and gradients of N unit embeddings [N, D] (inverse norms [N, 1]) with this rank's centers."""
    assert isinstance(head.loss, SFace), "rows are kept for SFace alone"
    batch = full_batch(head.class_shard, unit, inverse, identities)
    waiting = head.control.dense and head.steps_taken % DENSE_PATIENCE
    if head.tolerance == 0.0 or head.num_classes < FEWEST_SCREENED or waiting:
        # What travels does not depend on the number of classes.
        head.collectives.sum(torch.zeros(DROP_SUMS, device=unit.device))
        return dense_pass(head, rows, batch, head.loss, with_gradient=with_gradient)
    # A forward that trains nothing decides as a training one would, and leaves no trace.
    control = head.control if with_gradient else copy.copy(head.control)
    decision, sums = _measure(head, control, rows, batch, head.loss)
    if decision.mode == "dense":
        return dense_pass(head, rows, batch, head.loss, with_gradient=with_gradient)
    weight = head.num_classes / sums.sampled
    samples = len(unit)
    estimate = Estimate(
        decision.dropped_embedding,
        decision.dropped_center,
        weight * decision.mass_share * sums.dropped_loss / samples,
        sums.angles / sums.negatives if sums.negatives else math.nan,
        sums.angle_squares / sums.negatives if sums.negatives else math.nan,
        decision.dropped_mass,
    )
    return screened_pass(head, rows, batch, head.loss, decision.level, estimate, with_gradient=with_gradient)


def _measure(
    head: "PartialFC", control: ToleranceControl, rows: CenterRows, batch: FullBatch, loss: SFace
) -> tuple[Decision, DropSums]:
    """Score the step's sample of centers, on all ranks together, and decide how the step is taken."""
    level = control.level
    if level is None:
        level = min(LEVELS - 1, FIRST_LEVEL + round(2 * math.log2(1e-3 / head.tolerance)))
    sampled = sample_rows(head.class_shard, head.num_classes, head.steps_taken, batch.unit.device)
    vector = measure_drop(rows, sampled, batch, loss, level, head.workspace)
    sums = DropSums.of(head.collectives.sum(vector.float()))
    control.learn(sums, head.num_classes, level)
    decision = control.decide(sums, head.num_classes, level)
    control.level, control.dense = decision.level, decision.mode == "dense"
    return decision, sums
