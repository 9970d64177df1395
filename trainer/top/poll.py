"""All endpoints asked at the same time; which they are is found out by asking, too."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from trainer.errors import ConfigError
from trainer.top.endpoints import Endpoint, Machine, Sources, read_targets
from trainer.top.fetch import EndpointError, fetch
from trainer.top.reading import Reading, parse_reading

AT_ONCE = 256  # connections
BLOCK = 16  # ports probed together: a dead rank amid others does not hide those behind it
MOST_RANKS = 1024  # of a machine
HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Answer:
    """A reading, or the problem why there is none."""

    endpoint: Endpoint
    reading: Reading | None
    problem: str = ""


class Poller:
    """Asks every endpoint at each :meth:`poll`. One that has answered once stays, and is told to be gone later."""

    def __init__(self, sources: Sources, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._targets_file = sources.targets
        self._targets: Sequence[Endpoint] = ()
        self._ranks: dict[Machine, list[Endpoint]] = {machine: [] for machine in sources.machines}

    def tried(self) -> str:
        """Where ranks were looked for, for a message."""
        machines = [f"{machine.first} and the {BLOCK - 1} ports after it" for machine in self._ranks]
        targets = [str(target) for target in self._targets]
        return (
            ", ".join([*machines, *targets[:BLOCK], *(["..."] if len(targets) > BLOCK else [])]) or "no target at all"
        )

    async def poll(self) -> list[Answer]:
        """One answer for each endpoint known by now, none twice; of a machine without ranks, its first port's."""
        if self._targets_file is not None:
            with suppress(ConfigError):  # half-written or gone for a moment: what was there before still holds
                self._targets = read_targets(self._targets_file)
        gate = asyncio.Semaphore(AT_ONCE)
        machines = [self._poll_machine(machine, gate) for machine in self._ranks]
        answers: dict[Endpoint, Answer] = {}
        for part in await asyncio.gather(*machines, self._ask(self._targets, gate)):
            answers |= {answer.endpoint: answer for answer in part if answer.endpoint not in answers or answer.reading}
        return list(answers.values())

    async def _poll_machine(self, machine: Machine, gate: asyncio.Semaphore) -> list[Answer]:
        known = self._ranks[machine]
        if not known:
            return await self._discover(machine, gate)
        # The port after the last one too: that rank may have come up since.
        answers = await self._ask([*known, *_ports(known[-1], 1, 1)], gate)
        ranks = answers[: max(len(known), ranks_of(answers, machine.job).stop)]
        self._ranks[machine] = [answer.endpoint for answer in ranks]
        return ranks

    async def _discover(self, machine: Machine, gate: asyncio.Semaphore) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < MOST_RANKS:
            block = await self._ask(_ports(machine.first, len(answers), BLOCK), gate)
            answers += block
            if not block or block[-1].reading is None:
                break
        found = ranks_of(answers, machine.job)
        ranks = answers[found.start : found.stop]
        self._ranks[machine] = [answer.endpoint for answer in ranks]
        return ranks or [_nobody(answers[0])]

    async def _ask(self, endpoints: Iterable[Endpoint], gate: asyncio.Semaphore) -> list[Answer]:
        async def ask(endpoint: Endpoint) -> Answer:
            async with gate:
                try:
                    body = await fetch(endpoint, timeout_seconds=self._timeout_seconds)
                    return Answer(endpoint, parse_reading(body, time=time.monotonic(), wall_time=time.time()))
                except EndpointError as error:
                    return Answer(endpoint, None, str(error))

        return await asyncio.gather(*(ask(endpoint) for endpoint in endpoints))


def _nobody(answer: Answer) -> Answer:
    """Of the first port of a machine that has no rank of the job."""
    if answer.reading is None:
        return answer
    return Answer(answer.endpoint, None, f"a rank of another run, {answer.reading.job}, answers")


def _ports(first: Endpoint, start: int, count: int) -> list[Endpoint]:
    begin = first.port + start
    return [Endpoint(first.host, port) for port in range(begin, min(begin + count, HIGHEST_PORT + 1))]


def ranks_of(answers: Sequence[Answer], job: str | None) -> range:
    """Which of a machine's consecutive ports are the job's, None: of the first that answers. Ports that do not answer
    are, too, unless another job's are between them and those that do: a rank may be dead.
    """
    start = stop = 0
    for number, answer in enumerate(answers):
        if answer.reading is None:
            continue
        if stop == 0 and job is None:
            job = answer.reading.job
        if answer.reading.job in (None, job):
            stop = number + 1
        elif stop:
            break
        else:
            start = number + 1
    return range(start, stop) if stop else range(0)
