"""What ``pfc bench checkpoint`` measures, and what a measurement says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointEffort:
    """One size and how long to measure it.

    batch: per rank. warmup: steps before the first checkpoint, in which rows gather momentum. threads: of arithmetic,
    per rank.
    """

    num_classes: int
    embedding_dim: int
    batch: int
    backbone: str
    repetitions: int
    warmup: int
    threads: int
    seed: int


@dataclass(frozen=True)
class Round:
    """One repetition, of the slowest rank: seconds.

    synchronous: that training waits for a synchronous checkpoint. stall: for an asynchronous one. complete: until that
    one is complete. step: a step with nothing beside it. beside: what the steps taken meanwhile took longer.
    """

    synchronous: float
    stall: float
    complete: float
    step: float
    beside: float


@dataclass(frozen=True)
class CheckpointRow:
    """One line of the table: medians over rounds; ratios are taken round by round, with quartiles.

    checkpoint_bytes: of the whole checkpoint. copy_bytes: memory that copies take on the rank with most.
    stall_over_sync: the figure to reach is 0.10. stall_over_step: in steps. cost_over_sync: stall and what steps took
    longer while it was written.
    """

    num_classes: int
    embedding_dim: int
    batch: int
    backbone: str
    world_size: int
    threads: int
    repetitions: int
    warmup: int
    seed: int
    checkpoint_bytes: int
    copy_bytes: int
    step_seconds: float
    sync_seconds: float
    sync_seconds_q1: float
    sync_seconds_q3: float
    stall_seconds: float
    stall_seconds_q1: float
    stall_seconds_q3: float
    complete_seconds: float
    stall_over_sync: float
    stall_over_sync_q1: float
    stall_over_sync_q3: float
    stall_over_step: float
    cost_over_sync: float
