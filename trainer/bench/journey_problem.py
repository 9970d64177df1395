"""What ``pfc bench journey`` does, and what it finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JourneyEffort:
    """identities, images_per_identity: of the data set to train on. unseen_identities, pairs: to verify on. ranks: of
    the run until it is killed; resume_ranks: of its continuation. kill_after: the run is killed some steps after the
    first whole checkpoint of this step or a later one. cores: of this machine, spread over the ranks.
    """

    identities: int
    images_per_identity: int
    unseen_identities: int
    pairs: int
    ranks: int
    resume_ranks: int
    kill_after: int
    cores: int


@dataclass(frozen=True)
class Drawn:
    """The data set. seconds: 0 where it was there already. nbytes: on disk."""

    seconds: float
    images: int
    nbytes: int
    peak_together: int


@dataclass(frozen=True)
class Stretch:
    """The run between a start and its end or death.

    start_seconds: from the command to the first step begun. opening, building, loading: parts of it, by rank 0. steps:
    first and last that were logged. step_seconds: median, the first one left out; parts: means of the same steps by
    rank 0. stall_seconds, write_seconds: of each checkpoint, means (0: none was written). peak_resident: of each rank,
    bytes. peak_together: of all processes, proportional, bytes.
    """

    ranks: int
    seconds: float
    start_seconds: float
    opening: float
    building: float
    loading: float
    first_step: int
    last_step: int
    step_seconds: float
    images_per_second: float
    parts: dict[str, float]
    stall_seconds: float
    write_seconds: float
    peak_resident: tuple[int, ...]
    peak_together: int


@dataclass(frozen=True)
class Restart:
    """killed_at: last step logged before the kill. continued_at: step of the checkpoint. ended: seconds from the kill
    until the launcher had ended. to_next_step: from the kill until the continued run had taken its first step.
    """

    killed_at: int
    continued_at: int
    checkpoint_bytes: int
    ended: float
    to_next_step: float


@dataclass(frozen=True)
class Learned:
    """angle_first, angle_last: mean angle to the own center, rad, over the first and last tenth of the steps; loss_*
    the same of the loss. accuracy, untrained: on pairs of unseen identities, with its deviation over ten folds.
    """

    loss_first: float
    loss_last: float
    angle_first: float
    angle_last: float
    accuracy: float
    accuracy_std: float
    untrained: float
    untrained_std: float


@dataclass(frozen=True)
class Ended:
    """A command after the training. seconds: of the whole command."""

    seconds: float
    peak_together: int


@dataclass(frozen=True)
class Journey:
    """All of it. backbone: name and image size. seconds: from the first command to the end of the last."""

    effort: JourneyEffort
    backbone: str
    embedding_dim: int
    global_batch: int
    drawn: Drawn
    before: Stretch
    restart: Restart
    after: Stretch
    evaluation: Ended
    learned: Learned
    report: Ended
    run_bytes: int
    seconds: float

    @property
    def peak_together(self) -> int:
        """Of all phases, bytes."""
        return max(each.peak_together for each in (self.drawn, self.before, self.after, self.evaluation, self.report))
