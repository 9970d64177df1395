"""One training run to which things happen at seeded moments: ranks and launchers killed, frozen, stopped, delayed.

Whatever ends is started again, by the launcher itself or by this harness in the place of a scheduler, until the run is
complete. In between, every promise is checked that can be seen from outside: what must end has ended within the
deadline, no worker outlives its launcher, exit codes are the contract's, and nobody prints a traceback.
"""

import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Literal, get_args

from commands import launch, marked, ranks_of, running
from rank_log import RankLog

Moment = Literal["start", "step", "checkpoint", "evaluation"]
Action = Literal["kill", "freeze", "stop", "interrupt", "delay"]
SIGNALS = {
    "kill": signal.SIGKILL,
    "freeze": signal.SIGSTOP,
    "stop": signal.SIGTERM,
    "interrupt": signal.SIGINT,
    "delay": signal.SIGSTOP,
}
LAUNCHER = -1
DEADLINE_SECONDS = 60.0  # the promise: after so long nobody is left of a run that lost a rank
START_SECONDS = 120.0
EVALUATION_STEPS = 7  # of the run's configuration: between two evaluations
LONGEST_DELAY = {"start": 5.0, "step": 0.1, "checkpoint": 0.03, "evaluation": 0.1}


@dataclass(frozen=True)
class Fault:
    """``action`` on ``target`` (a rank, or LAUNCHER), ``delay`` seconds after a moment.

    The moment is looked for ``steps`` steps after the last fault, or after the start that followed it.
    """

    moment: Moment
    action: Action
    target: int
    steps: int = 1
    delay: float = 0.0

    def __str__(self) -> str:
        target = "launcher" if self.target == LAUNCHER else f"rank {self.target}"
        when = "" if self.moment == "start" else f" after {self.steps} steps"
        return f"{self.action} {target} at {self.moment}{when} + {self.delay:.2f} s"

    @property
    def asks(self) -> bool:
        return self.action in ("stop", "interrupt")


def draw_plan(seed: int, faults: int, ranks: int) -> list[Fault]:
    """Two thirds of them kill; the others are drawn from all kinds."""
    draw = random.Random(seed)
    plan = []
    for number in range(faults):
        action: Action = "kill" if number % 3 else draw.choice(get_args(Action))
        moment: Moment = draw.choice(get_args(Moment))
        # A frozen launcher is a frozen machine: that takes two machines, see test_two_hosts.
        targets = [*range(ranks), *([LAUNCHER] if action in ("kill", "stop", "interrupt") else [])]
        delay = draw.uniform(0, LONGEST_DELAY[moment])
        plan.append(Fault(moment, action, draw.choice(targets), draw.randint(1, 3), delay))
    return plan


def enough_steps(plan: list[Fault]) -> int:
    """So many that the run is not complete before all has happened."""
    return 6 + sum(fault.steps + (EVALUATION_STEPS if fault.moment == "evaluation" else 3) for fault in plan)


@dataclass
class Chaos:
    """The run's folder, the arguments of its command, and what has happened so far."""

    output: Path
    arguments: list[str]
    ranks: int
    folder: Path
    say: Callable[[str], None] = print
    launches: int = 0
    exit_codes: list[int] = field(default_factory=list)
    printed: str = ""

    def __post_init__(self) -> None:
        self._log = RankLog(self.output / "logs" / "rank_0000.jsonl")
        self._starts_then = 0

    @property
    def starts(self) -> int:
        """How often training began."""
        return self._log.update().starts

    def run(self, plan: list[Fault]) -> None:
        """All faults, and then to the end. Raises AssertionError for a promise that was not kept."""
        left = list(plan)
        while True:
            self.launches += 1
            mark, printed = uuid.uuid4().hex, self.folder / f"launch{self.launches}.txt"
            command = launch(self.ranks, *self.arguments, restarts=1000)
            with running(command, cwd=self.folder, mark=mark, printed=printed) as process:
                expected = 0
                while left and process.poll() is None:
                    began = time.monotonic()
                    what = self._strike(left[0], process, mark)
                    fault = left.pop(0)
                    self.say(f"{fault}: {what}, {time.monotonic() - began:.1f} s")
                    if process.poll() is not None:
                        expected = 75 if fault.asks else -signal.SIGKILL if fault.target == LAUNCHER else 0
                code = process.wait(timeout=600)
                _until(lambda mark=mark: not marked(mark), "workers outlived their launcher", DEADLINE_SECONDS)
            text = printed.read_text()
            self.printed += text
            self.exit_codes.append(code)
            assert code == expected, f"exit code {code} instead of {expected}: {text}"
            assert "Traceback" not in text, text
            if code == 0:
                assert not left, "the run ended before all faults had happened: give it more steps"
                return

    def _strike(self, fault: Fault, process: "Popen[str]", mark: str) -> str:
        """Wait for the moment, act, and wait until what must follow has followed."""

        def has_ended() -> bool:
            return process.poll() is not None

        _until(lambda: has_ended() or len(ranks_of(mark)) == self.ranks, "no workers came", START_SECONDS, poll=0.02)
        if fault.moment != "start":
            _until(
                lambda: has_ended() or self._log.update().starts > self._starts_then,
                f"no start before {fault}",
                START_SECONDS,
            )
            first = self._log.step
            _until(lambda: has_ended() or self._has_come(fault, first), f"{fault} never came", START_SECONDS)
        time.sleep(fault.delay)
        before = ranks_of(mark)
        struck = process.pid if fault.target == LAUNCHER else before.get(fault.target)
        if has_ended() or struck is None:
            raise AssertionError(f"nobody was there for {fault}")
        with suppress(ProcessLookupError):
            os.kill(struck, SIGNALS[fault.action])
        if fault.action == "delay":
            time.sleep(0.5)
            with suppress(ProcessLookupError):
                os.kill(struck, signal.SIGCONT)
            return "and continued"

        def has_restarted() -> bool:
            now = ranks_of(mark).values()
            return len(now) == self.ranks and not set(now) & set(before.values())

        _until(lambda: has_ended() or has_restarted(), f"nothing followed on: {fault}", DEADLINE_SECONDS, poll=0.02)
        self._starts_then = self._log.update().starts
        return "all ended" if has_ended() else "started again"

    def _has_come(self, fault: Fault, first: int) -> bool:
        steps = [event["step"] for event in self._log.update().events if event["event"] == "step"]
        new = [step for step in steps if step >= first + fault.steps]
        if fault.moment == "step":
            return bool(new)
        if fault.moment == "evaluation":
            return any(step % EVALUATION_STEPS == 0 for step in new)
        return any(self.output.glob("checkpoints/.step_*.draft"))


def _until(happened: Callable[[], bool], otherwise: str, seconds: float, *, poll: float = 0.002) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{otherwise}, for {seconds:.0f} s"
        time.sleep(poll)
