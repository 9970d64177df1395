"""One optimizer step, from a batch of images to updated weights and centers.

Shape letters: B this rank's images of the step, N those of all ranks, k micro-batches, W ranks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from data_pipeline import Batch
from partial_fc import AngleSurvey, CenterSGD, HeadStats, PartialFC, combined_stats, survey_angles
from trainer.buffers import BufferKeeper
from trainer.engine import Engine, Outcome
from trainer.phases import PhaseClock
from trainer.world import World


@dataclass(frozen=True)
class StepResult:
    """stats: of the head, over the whole global batch. outcome: whether weights and centers moved. angles: of the last
    micro-batch, before the update, where they were asked for.
    """

    stats: HeadStats
    outcome: Outcome
    angles: AngleSurvey | None = None


class TrainStep:
    """Forward, head, backward for each micro-batch; then one decision of all ranks, and the update.

    ``micro_batches``: into how many pieces a rank's batch is cut, at most; their sizes differ by one. Each piece's loss
    counts by its share of the N images, so backbone and centers get the gradient of the whole batch, whatever the
    sizes. ``center_lr_share``: the centers' learning rate relative to the backbone's.

    A step whose loss or gradient is not finite on any rank leaves no trace but the random numbers it drew: weights,
    centers, momentum, running statistics and the head's running means stay as they were on all ranks.
    """

    def __init__(
        self,
        engine: Engine,
        backbone: nn.Module,
        head: PartialFC,
        center_optimizer: CenterSGD,
        *,
        world: World,
        clock: PhaseClock,
        micro_batches: int = 1,
        center_lr_share: float = 1.0,
    ) -> None:
        self._engine = engine
        self._head = head
        self._center_optimizer = center_optimizer
        self._world = world
        self._clock = clock
        self._micro_batches = micro_batches
        self._center_lr_share = center_lr_share
        self._buffers = BufferKeeper(backbone)

    def __call__(self, batch: Batch, learning_rate: float, *, global_batch: int, survey: bool = False) -> StepResult:
        """Train on one batch, cut from ``global_batch`` = N images as evenly as the loader does it.

        survey: also measure how the angles are distributed; the same on all ranks.
        """
        clock = self._clock
        with clock.phase("data"):
            images = batch.images.to(self._world.device, non_blocking=True)
            identities = batch.identities.to(self._world.device, non_blocking=True)
        # Some rank has the ceiling of N / W images: with more pieces than that one would be empty everywhere.
        pieces = min(self._micro_batches, -(-global_batch // self._world.world_size))
        with clock.phase("forward"):
            self._buffers.keep()
        control = self._head.control.state()
        parts: list[HeadStats] = []
        angles: AngleSurvey | None = None
        for place, piece in enumerate(zip(images.tensor_split(pieces), identities.tensor_split(pieces), strict=True)):
            last = place == pieces - 1
            stats, embeddings = self._pass(*piece, parts, last=last, global_batch=global_batch)
            parts.append(stats)
            if last and survey:
                angles = survey_angles(self._head, embeddings, piece[1])
        with clock.phase("optimizer"):
            outcome = self._engine.update(learning_rate, loss_finite=_finite(parts))
            if outcome.applied:
                for group in self._center_optimizer.param_groups:
                    group["lr"] = learning_rate * self._center_lr_share
                self._center_optimizer.step()
            else:
                self._buffers.put_back()
                self._head.control.load_state(control)
            self._center_optimizer.zero_grad()
        return StepResult(combined_stats(parts), outcome, angles)

    def _pass(
        self, images: Tensor, identities: Tensor, before: Sequence[HeadStats], *, last: bool, global_batch: int
    ) -> tuple[HeadStats, Tensor]:
        """Forward and backward of one micro-batch; ``before``: the statistics of earlier ones. Also its embeddings."""
        clock = self._clock
        with self._engine.micro_batch(last=last):
            with clock.phase("forward"):
                embeddings = self._engine.embed(images)
            with clock.phase("head"):
                loss = self._head(embeddings, identities)
            stats = self._head.stats
            assert stats is not None, "the head has just run"
            if not _finite([*before, stats]):
                # What decides, in every engine, is the gradient's norm: this makes sure that it will not be finite.
                loss = loss * math.nan
            elif stats.samples != global_batch:
                loss = loss * (stats.samples / global_batch)
            with clock.phase("backward"):
                self._engine.backward(loss)
        return stats, embeddings.detach()


def _finite(parts: Sequence[HeadStats]) -> bool:
    """Whether loss and embedding gradient are, on all ranks: the head's statistics are common to them."""
    return all(math.isfinite(part.loss) and math.isfinite(part.gradient_norm) for part in parts)
