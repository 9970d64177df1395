"""The batches of a loop that is measured: between two of them, its parts are.

The training loop asks for a batch, takes a step and asks for the next one: from request to request is one step, with
all that the loop does around it. So the measurement is written as the generator of the loop's batches.
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping

import torch.distributed as dist

from data_pipeline import Batch
from data_pipeline.errors import Reason
from data_pipeline.loader import Loader
from trainer.agreement import largest
from trainer.bench.seconds import Seconds
from trainer.bench.step_account import AccountAlone, TimedAccount
from trainer.bench.step_parts import PartsAlone
from trainer.bench.step_problem import DECODE, METRICS, Round, StepEffort
from trainer.world import World

IN_MEMORY = 8  # different batches
PREFETCH = 2  # of the loader
MOST_LEAD_IN = 2 * PREFETCH + 2  # steps after which nothing is left of what the loader had decoded before
QUIET_SECONDS, QUIET_SHARE, QUIET_DEADLINE = 0.05, 0.1, 5.0


class MeasuredEnoughError(Exception):
    """Ends the loop: all rounds are done."""


class Rounds:
    """A :class:`trainer.batch_source.BatchSource` in the place of ``loader``; ``rounds`` is filled as the loop runs.

    account: the loop's own.
    """

    def __init__(
        self,
        loader: Loader,
        effort: StepEffort,
        world: World,
        *,
        parts: PartsAlone,
        account: TimedAccount,
        alone: AccountAlone,
        now: Callable[[], Seconds],
        after_round: Callable[[int], None],
    ) -> None:
        self.bad_images = loader.bad_images
        self.rounds: list[Round] = []
        self._loader = loader
        self._effort = effort
        self._world = world
        self._parts = parts
        self._account = account
        self._alone = alone
        self._now = now
        self._after_round = after_round

    @property
    def last_global_batch(self) -> int:
        """The same for all: no epoch ends."""
        return self._loader.global_batch

    @property
    def skipped(self) -> Mapping[Reason, int]:
        """None of these images is bad."""
        return self._loader.skipped

    def state_dict(self) -> dict[str, int | str]:
        """Of the loader."""
        return self._loader.state_dict()

    def __iter__(self) -> Iterator[Batch]:
        effort = self._effort
        loaded = iter(self._loader)
        pool = [_copied(next(loaded)) for _ in range(IN_MEMORY)]
        memory = itertools.cycle(pool)
        decode = self._decode_alone(loaded)
        step = yield from self._steps(memory, effort.warmup)
        self._measure_parts(memory, 1)  # their first calls take memory
        # Where decoding keeps up, a step finds the loader as every later one does; where it does not, what was decoded
        # while other things were measured is used up first.
        keeps_up = 2 * largest(self._world, decode.wall) < largest(self._world, step.wall)
        lead_in = 1 if keeps_up else MOST_LEAD_IN
        self._account.begin_anew()
        for number in range(1, effort.repetitions + 1):
            # In turn first and last, so that a machine that grows slower favours nobody.
            parts = self._measure_parts(memory, effort.steps) if number % 2 == 0 else {}
            step = yield from self._steps(memory, effort.steps)
            parts = parts or self._measure_parts(memory, effort.steps)
            yield from self._steps(loaded, lead_in)
            loaded_step = yield from self._steps(loaded, effort.steps)
            parts[DECODE] = self._decode_alone(loaded)
            self._add(parts, step, loaded_step)
            self._after_round(number)
        raise MeasuredEnoughError

    def _steps(self, batches: Iterator[Batch], count: int) -> Generator[Batch, None, Seconds]:
        """Mean time of ``count`` steps of the loop, each from its request for a batch to the next one."""
        self._meet()
        total = Seconds()
        for _ in range(count):
            began = self._now()
            yield next(batches)
            total = total + (self._now() - began)
        return total / count

    def _measure_parts(self, memory: Iterator[Batch], count: int) -> dict[str, Seconds]:
        assert self._account.last is not None, "the loop has taken a step"
        parts = self._parts.measure(list(itertools.islice(memory, count)))
        self._meet()
        return parts | {METRICS: self._alone.measure(*self._account.last)}

    def _decode_alone(self, loaded: Iterator[Batch]) -> Seconds:
        """Mean time of a batch while nothing else works; the loader is at rest afterwards."""
        for _ in range(2 * PREFETCH):  # decoded before
            next(loaded)
        self._meet()
        began = self._now()
        for _ in range(self._effort.steps):
            next(loaded)
        seconds = (self._now() - began) / self._effort.steps
        _until_quiet()
        return seconds

    def _add(self, parts: dict[str, Seconds], step: Seconds, loaded_step: Seconds) -> None:
        slowest = {part: self._slowest(seconds) for part, seconds in parts.items()}
        self.rounds.append(Round(slowest, self._slowest(step), self._slowest(loaded_step)))

    def _slowest(self, seconds: Seconds) -> Seconds:
        return Seconds(largest(self._world, seconds.wall), largest(self._world, seconds.cpu))

    def _meet(self) -> None:
        if self._world.world_size > 1:
            dist.barrier()


def batches_needed(effort: StepEffort) -> int:
    """Batches that the loader hands out or has in work, at most."""
    a_round = MOST_LEAD_IN + 2 * effort.steps + 2 * PREFETCH
    return IN_MEMORY + 2 * PREFETCH + (effort.repetitions + 1) * a_round


def _copied(batch: Batch) -> Batch:
    """In memory that the decoder does not use again."""
    return Batch(batch.images.clone(), batch.identities.clone(), batch.indices.clone())


def _until_quiet() -> None:
    """Wait until this process's other threads, which decode ahead, have nothing left to do."""
    deadline = time.monotonic() + QUIET_DEADLINE
    while time.monotonic() < deadline:
        before = time.process_time()
        time.sleep(QUIET_SECONDS)
        if time.process_time() - before < QUIET_SHARE * QUIET_SECONDS:
            return
