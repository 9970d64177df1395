"""What ``pfc bench restart`` measures, and what a measurement says."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class RestartEffort:
    """One size and how often to measure it. batch: per rank. checkpoint_steps: between two checkpoints."""

    num_classes: int
    embedding_dim: int
    batch: int
    backbone: str
    image_size: int
    images: int
    world_size: int
    repetitions: int
    checkpoint_steps: int
    seed: int


@dataclass(frozen=True)
class Restart:
    """From the death of one rank to the first step of the run that was started again: seconds of each part, in order.

    noticed: until somebody says so. ended: until the launcher has seen the end of all ranks. relaunched: until rank 0's
    new process exists. imports: until it begins to join the others. joining, opening (the data), building (backbone,
    head), loading (the checkpoint): as rank 0 has told them. first_step: until the first step is taken and logged.
    """

    noticed: float
    ended: float
    relaunched: float
    imports: float
    joining: float
    opening: float
    building: float
    loading: float
    first_step: float

    @property
    def total(self) -> float:
        """Of all parts."""
        return float(sum(getattr(self, part) for part in PARTS))


PARTS = tuple(each.name for each in fields(Restart))


@dataclass(frozen=True)
class RestartRow:
    """One line of the table: median and quartiles of the whole, medians of the parts, over repetitions.

    total: the figure to reach is 20 s at 100,000 classes. checkpoint_bytes: of what is read. step_seconds: of a usual
    step of the run, median.
    """

    effort: RestartEffort
    checkpoint_bytes: int
    step_seconds: float
    total: float
    total_q1: float
    total_q3: float
    parts: dict[str, float]
