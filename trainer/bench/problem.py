"""What ``pfc bench head`` measures, and what a measurement says.

Shape letters: C classes, B batch of one rank, N global batch, R classes of one rank, D embedding size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from partial_fc.center_module import CenterDtype, CenterMemory

PRODUCT = "product"  # the bare float32 logits product against itself: the noise of the machine
SFACE = "sface"  # this head, steady phase of a training
ALL_ACTIVE = "sface-all-active"  # this head, every pair active: the worst dense phase
PLAIN = "sface-plain-torch"  # one process, whole matrices: the script that users start from
COSFACE = "cosface"
COSFACE_SAMPLED = "cosface-0.1"
OF_THIS_HEAD = (SFACE, ALL_ACTIVE, COSFACE, COSFACE_SAMPLED)
IN_FLOAT32: tuple[CenterDtype, CenterMemory] = ("float32", "device")
METHODS = (PRODUCT, SFACE, ALL_ACTIVE, PLAIN, COSFACE, COSFACE_SAMPLED)


@dataclass(frozen=True)
class Problem:
    """One method at one size. batch: per rank. spread: standard deviation of the negatives' cosines.

    tolerance: what the head may err by, relative to the batch's gradient; methods other than sface ignore it.
    center_dtype, center_memory: of this head's centers; product and plain PyTorch have float32 on the device.
    """

    method: str
    num_classes: int
    embedding_dim: int
    batch: int
    spread: float
    tolerance: float
    center_dtype: CenterDtype = "float32"
    center_memory: CenterMemory = "device"


@dataclass(frozen=True)
class Effort:
    """How long to measure. warmup: steps before timing. threads: of arithmetic, per rank."""

    repetitions: int
    warmup: int
    threads: int
    seed: int


@dataclass(frozen=True)
class Row:
    """One line of the table; None where a method has no such figure.

    Seconds and ratios: median and quartiles over repetitions, of the slowest rank. product_seconds: of the bare
    float32 product [R, D] x [D, N], timed in turn with the steps. mode: of the timed steps. active_pairs: negatives
    per sample whose coefficient reaches ``cut``, median. error: the head's estimate, largest. center_dtype: what
    centers are stored in, center_memory: where, in centers_bytes. extra_bytes: peak memory of a rank beyond them in
    the timed steps; extra_bytes_ever: since the first step. bytes_moved: what a rank hands to collectives in a step.
    """

    method: str
    num_classes: int
    embedding_dim: int
    batch: int
    spread: float | None
    tolerance: float | None
    world_size: int
    device: str
    threads: int
    repetitions: int
    warmup: int
    seed: int
    seconds: float
    seconds_q1: float
    seconds_q3: float
    product_seconds: float
    ratio: float
    ratio_q1: float
    ratio_q3: float
    mode: str | None
    active_pairs: float | None
    cut: float | None
    error: float | None
    center_dtype: str
    center_memory: str
    centers_bytes: int
    extra_bytes: int | None
    extra_over_centers: float | None
    extra_bytes_ever: int | None
    bytes_moved: int


@dataclass(frozen=True)
class Skipped:
    """A problem that was not measured, and why."""

    problem: Problem
    reason: str

    def __str__(self) -> str:
        size = f"{self.problem.num_classes:,} classes, D={self.problem.embedding_dim}, B={self.problem.batch}"
        return f"skipped {self.problem.method} at {size}: {self.reason}"


def problems(
    methods: Sequence[str],
    *,
    classes: Sequence[int],
    embedding_dims: Sequence[int],
    batches: Sequence[int],
    spreads: Sequence[float],
    tolerances: Sequence[float],
    center_dtypes: Sequence[CenterDtype] = ("float32",),
    center_memories: Sequence[CenterMemory] = ("device",),
) -> Iterator[Problem]:
    """All combinations for sface; the other methods do the same work whatever spread and tolerance are: the first.

    Product and plain PyTorch have float32 centers alone.
    """
    for num_classes, embedding_dim, batch in product(classes, embedding_dims, batches):
        for method in methods:
            kept = list(product(center_dtypes, center_memories)) if method in OF_THIS_HEAD else [IN_FLOAT32]
            for where, spread, tolerance in product(kept, spreads, tolerances):
                if method == SFACE or (spread, tolerance) == (spreads[0], tolerances[0]):
                    yield Problem(method, num_classes, embedding_dim, batch, spread, tolerance, *where)
