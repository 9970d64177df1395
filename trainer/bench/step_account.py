"""All that is told of a step: timed inside of the loop, and once more by itself."""

from collections.abc import Callable
from typing import Any

from trainer.bench.seconds import Seconds, both_clocks
from trainer.phases import PhaseClock
from trainer.pulse import STEP, Pulse
from trainer.step import StepResult
from trainer.step_account import StepAccount

# The phases of a step in the order in which loop and step enter them: twice where both do.
ENTERED = ("data", "data", "forward", "forward", "head", "backward", "optimizer")
STEPS_ALONE = 50  # of them some come with a line of the log and with a comparison of ranks


class TimedAccount(StepAccount):
    """Keeps how long it took to tell of all steps, how the head went about each, and what was told last."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.told = Seconds()
        self.modes: list[str] = []
        self.last: tuple[StepResult, dict[str, Any]] | None = None

    def begin_anew(self) -> None:
        """Forget the steps so far."""
        self.told = Seconds()
        self.modes = []

    @property
    def mean(self) -> Seconds:
        """Of a step."""
        return self.told / len(self.modes)

    def step_taken(self, result: StepResult, **facts: Any) -> None:
        """As of any account."""
        began = both_clocks()
        super().step_taken(result, **facts)
        self.told = self.told + (both_clocks() - began)
        self.modes.append(result.stats.mode)
        self.last = result, facts


class AccountAlone:
    """What loop, clock and account do to tell of a step, over and over: watchdog's pulse, phases, figures, lines.

    account: not the loop's, so that nothing of the loop's is counted twice; pulse and clock belong to it.
    """

    def __init__(self, account: StepAccount, pulse: Pulse, clock: PhaseClock, now: Callable[[], Seconds]) -> None:
        self._account = account
        self._pulse = pulse
        self._clock = clock
        self._now = now
        self._step = 0

    def measure(self, result: StepResult, facts: dict[str, Any]) -> Seconds:
        """Mean time of telling ``facts`` of a step; all ranks call it together."""
        self._clock.restart()
        began = self._now()
        for _ in range(STEPS_ALONE):
            self._step += 1
            self._pulse.enter(STEP, self._step)
            for part in ENTERED:
                with self._clock.phase(part):
                    pass
            self._clock.finish_step()
            self._account.step_taken(result, **facts | {"step": self._step})
            self._pulse.enter_part("agreement")
        return (self._now() - began) / STEPS_ALONE
