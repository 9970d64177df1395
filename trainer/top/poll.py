"""All endpoints asked at the same time; which they are is found out by asking, too."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from trainer.errors import ConfigError
from trainer.top.endpoints import Endpoint, Sources, read_targets
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
        self._machines: dict[Endpoint, list[Endpoint]] = {first: [] for first in sources.first_ports}

    def tried(self) -> str:
        """Where ranks were looked for, for a message."""
        machines = [f"{first} and the {BLOCK - 1} ports after it" for first in self._machines]
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
        machines = [self._poll_machine(first, gate) for first in self._machines]
        answers: dict[Endpoint, Answer] = {}
        for part in await asyncio.gather(*machines, self._ask(self._targets, gate)):
            answers |= {answer.endpoint: answer for answer in part if answer.endpoint not in answers or answer.reading}
        return list(answers.values())

    async def _poll_machine(self, first: Endpoint, gate: asyncio.Semaphore) -> list[Answer]:
        known = self._machines[first]
        if not known:
            return await self._discover(first, gate)
        # The port after the last one too: that rank may have come up since.
        answers = await self._ask([*known, *_ports(first, len(known), 1)], gate)
        ranks = answers[: max(len(known), _ranks(answers))]
        self._machines[first] = [answer.endpoint for answer in ranks]
        return ranks

    async def _discover(self, first: Endpoint, gate: asyncio.Semaphore) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < MOST_RANKS:
            answers += await self._ask(_ports(first, len(answers), BLOCK), gate)
            if _ranks(answers) < len(answers):
                break
        ranks = answers[: _ranks(answers)]
        self._machines[first] = [answer.endpoint for answer in ranks]
        return ranks or answers[:1]

    async def _ask(self, endpoints: Iterable[Endpoint], gate: asyncio.Semaphore) -> list[Answer]:
        async def ask(endpoint: Endpoint) -> Answer:
            async with gate:
                try:
                    body = await fetch(endpoint, timeout_seconds=self._timeout_seconds)
                    return Answer(endpoint, parse_reading(body, time=time.monotonic(), wall_time=time.time()))
                except EndpointError as error:
                    return Answer(endpoint, None, str(error))

        return await asyncio.gather(*(ask(endpoint) for endpoint in endpoints))


def _ports(first: Endpoint, start: int, count: int) -> list[Endpoint]:
    begin = first.port + start
    return [Endpoint(first.host, port) for port in range(begin, min(begin + count, HIGHEST_PORT + 1))]


def _ranks(answers: Sequence[Answer]) -> int:
    """How many of a machine's consecutive ports are this job's: up to the last that answers as a rank of the job of
    the first one does. Another job's ranks may listen further up.
    """
    job, count = None, 0
    for number, answer in enumerate(answers, start=1):
        if answer.reading is None:
            continue
        if count == 0:
            job = answer.reading.job
        elif answer.reading.job != job:
            break
        count = number
    return count
