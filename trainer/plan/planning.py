"""The whole plan: memory, time, what limits, the most identities that fit, and settings that would do better."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from trainer.errors import ConfigError
from trainer.plan.memory import GIB, Memory, checkpoint_bytes, memory_of
from trainer.plan.problem import Problem
from trainer.plan.rates import Rates
from trainer.plan.timing import Timing, Traffic, timing_of, traffic_of

USABLE = 0.92  # of a device's memory: the rest is fragmentation and what others take
MOST_IDENTITIES = 10_000_000_000
EXACT_ENOUGH = 1.01  # of the most identities that fit
SAMPLE_RATE = 0.1
WORTH_SAYING = 0.99  # of the memory before: what saves less is no advice


@dataclass(frozen=True)
class Machine:
    """What a rank has. memory: bytes of its device. on_cpu: host and device are one, shared by the node's ranks."""

    name: str
    memory: float
    on_cpu: bool
    rates: Rates


@dataclass(frozen=True)
class Plan:
    """What a run would need and take. largest: most identities that fit on these ranks. advice: one line each."""

    problem: Problem
    machine: Machine
    memory: Memory
    timing: Timing
    dense_step: float | None
    traffic: Traffic
    checkpoint_bytes: float
    checkpoint_seconds: float
    largest: int
    limits: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def images_per_second(self) -> float:
        """Of all ranks."""
        return self.problem.batch * self.problem.ranks / self.timing.step

    @property
    def epoch_hours(self) -> float | None:
        """None where the number of images is not known."""
        images = self.problem.images
        return None if images is None else images / self.images_per_second / 3600

    @property
    def fits(self) -> bool:
        """In the worst phase."""
        return fits(self.problem, self.machine)

    @property
    def fits_steady(self) -> bool:
        """While few pairs are active."""
        return _needed(self.problem, self.machine, worst=False) <= USABLE * self.machine.memory


def make_plan(problem: Problem, machine: Machine) -> Plan:
    """All figures of ``problem`` on ``machine``."""
    memory = memory_of(problem, machine.rates, on_cpu=machine.on_cpu)
    timing = timing_of(problem, machine.rates)
    own, whole = checkpoint_bytes(problem, worst=False)
    nodes = -(-problem.ranks // problem.ranks_per_node)
    is_full = problem.head_kind == "full"
    return Plan(
        problem=problem,
        machine=machine,
        memory=memory,
        timing=timing,
        dense_step=timing_of(problem, machine.rates, mode="dense").step if is_full else None,
        traffic=traffic_of(problem),
        checkpoint_bytes=whole,
        checkpoint_seconds=max(own / machine.rates.disk, whole / nodes / machine.rates.disk),
        largest=largest_identities(problem, machine),
        limits=tuple(_limits(problem, machine, memory, timing)),
        advice=tuple(_advice(problem, machine)),
    )


def fits(problem: Problem, machine: Machine) -> bool:
    """Whether a rank's device holds the worst phase."""
    return _needed(problem, machine, worst=True) <= USABLE * machine.memory


def largest_identities(problem: Problem, machine: Machine) -> int:
    """Most identities whose worst phase fits, to 1%; 0 where not even one a rank does."""

    def holds(identities: int) -> bool:
        return fits(replace(problem, identities=identities), machine)

    low, high = problem.ranks, MOST_IDENTITIES
    if not holds(low):
        return 0
    while high > low * EXACT_ENOUGH + 1:
        middle = int((low * high) ** 0.5) if high > 2 * low else (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _needed(problem: Problem, machine: Machine, *, worst: bool) -> float:
    return memory_of(problem, machine.rates, on_cpu=machine.on_cpu).device(worst=worst)


def _limits(problem: Problem, machine: Machine, memory: Memory, timing: Timing) -> Iterator[str]:
    needed, has = memory.device(worst=True), USABLE * machine.memory
    most = max((part for part in memory.parts if part.on_device), key=lambda part: part.worst)
    share = f"the largest part: {most.name}, {most.worst / GIB:.1f} GiB"
    if needed > has:
        yield f"memory: the worst phase needs {needed / GIB:.1f} GiB a rank, {has / GIB:.1f} GiB are usable; {share}"
        if memory.device(worst=False) <= has:
            yield "memory: the steady phase fits; a phase with every pair active would not"
    else:
        yield f"memory: {needed / has:.0%} of the usable memory in the worst phase; {share}"
    slowest = max(timing.parts, key=lambda name: timing.parts[name])
    yield f"time: {slowest} takes {timing.parts[slowest] / timing.step:.0%} of a step"


def _advice(problem: Problem, machine: Machine) -> Iterator[str]:
    """Settings that make it fit, the cheapest in time first, or that make it faster."""
    config = problem.config
    it_fits = fits(problem, machine)
    if it_fits and not machine.on_cpu and config.backbone.precision == "float32":
        faster = problem.with_tables(backbone={"precision": "bfloat16"})
        gain = timing_of(problem, machine.rates).step / timing_of(faster, machine.rates).step
        yield f'backbone.precision = "bfloat16": {gain:.2f}x the images/s'
    if it_fits:
        if config.head.sample_rate < 1.0 and config.head.loss == "sface":
            full = problem.with_tables(head={"sample_rate": 1.0})
            if fits(full, machine):
                yield "head.sample_rate = 1.0: all classes fit, screened; sampling misses most active negatives"
        return
    chosen = problem
    for words, change in _savings(problem):
        changed = change(chosen)
        if _needed(changed, machine, worst=True) > WORTH_SAYING * _needed(chosen, machine, worst=True):
            continue
        chosen = changed
        yield words
        if fits(chosen, machine):
            return
    largest = largest_identities(chosen, machine)
    if largest < problem.identities:
        more = _ranks_that_fit(chosen, machine)
        yield f"more ranks: {more} of these devices hold it" if more else "a device with more memory"


def _savings(problem: Problem) -> Iterator[tuple[str, Callable[[Problem], Problem]]]:
    config = problem.config
    if config.backbone.precision == "float32":
        yield (
            'backbone.precision = "bfloat16": half the activations',
            lambda each: each.with_tables(backbone={"precision": "bfloat16"}),
        )
    if not config.backbone.activation_checkpointing:
        yield (
            "backbone.activation_checkpointing = true: few activations, a third more arithmetic",
            lambda each: each.with_tables(backbone={"activation_checkpointing": True}),
        )
    pieces = config.train.micro_batches
    if problem.batch // (2 * pieces) >= 2:
        yield (
            f"train.micro_batches = {2 * pieces}: half the activations",
            lambda each: each.with_tables(train={"micro_batches": 2 * pieces}),
        )
    if problem.zero_stage is None and problem.ranks > 1:
        zero: dict[str, object] = {"engine": "deepspeed"}
        yield (
            'train.engine = "deepspeed", [deepspeed.zero_optimization] stage = 2: optimizer and gradients split',
            lambda each: replace(
                each.with_tables(train=zero),
                config=each.with_tables(train=zero).config.model_copy(
                    update={"deepspeed": {"zero_optimization": {"stage": 2}}}
                ),
            ),
        )
    if config.head.center_dtype == "float32":
        yield (
            'head.center_dtype = "bfloat16": centers take half, rounded stochastically',
            lambda each: each.with_tables(head={"center_dtype": "bfloat16"}),
        )
    if config.head.center_memory == "device" and problem.head_kind == "full":
        yield (
            'head.center_memory = "host": rows that a step needs come to the device, their int8 copy stays there',
            lambda each: each.with_tables(head={"center_memory": "host"}),
        )
    if problem.head_kind == "softmax":
        yield (
            f"head.sample_rate = {SAMPLE_RATE}: gradients of a tenth of the classes",
            lambda each: each.with_tables(head={"sample_rate": SAMPLE_RATE}),
        )


def _ranks_that_fit(problem: Problem, machine: Machine) -> int | None:
    ranks = problem.ranks
    while ranks < 4096 and ranks * 2 <= problem.identities:
        ranks *= 2
        if fits(replace(problem, ranks=ranks), machine):
            return ranks
    return None


def require_possible(ranks: int) -> None:
    """Raises ConfigError for a number of ranks that nobody has."""
    if not 1 <= ranks <= 65536:
        raise ConfigError(f"--ranks {ranks}: must lie between 1 and 65536")
