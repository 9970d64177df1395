"""Where this rank stands: told by the training as it goes on, read by the watchdog's threads at any time."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

STARTING = "starting"
JOINING = "joining the other ranks"
OPENING = "opening the data"
BUILDING = "building the model"
LOADING = "reading the checkpoint"
FIRST_STEP = "first step"
STEP = "step"
EVALUATING = "evaluation"
SAVING = "checkpoint"
LEAVING = "leaving"
LEFT = "left"

START = {JOINING: "joining", OPENING: "opening", BUILDING: "building", LOADING: "loading"}  # in the log
BEFORE_TRAINING = (STARTING, JOINING, OPENING, BUILDING, LOADING)
PARTS = ("data", "forward", "head", "backward", "optimizer", "agreement")


@dataclass(frozen=True)
class Standing:
    """Phase, number of the step, and part of it ("" outside of steps)."""

    phase: str = STARTING
    step: int = 0
    part: str = ""

    def __str__(self) -> str:
        if self.phase in (FIRST_STEP, STEP):
            return f"step {self.step}" + (f" ({self.part})" if self.part else "")
        if self.phase in (EVALUATING, SAVING):
            return f"{self.phase} at step {self.step}"
        return self.phase

    @property
    def progress(self) -> tuple[int, int]:
        """Comparable between ranks in the middle of steps: whoever waits for another one has the larger."""
        return self.step, PARTS.index(self.part) if self.part in PARTS else -1


class Pulse:
    """Written by the training's thread alone; readers see one whole standing or the next.

    on_phase: called when another phase begins. now: seconds, of whatever beginning.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.on_phase: Callable[[], None] = lambda: None
        self.standing = Standing()
        self.changes = 0
        self.fails = False
        self._now = now
        self._first_entered: dict[str, float] = {}

    def enter(self, phase: str, step: int = 0) -> None:
        """Begin a phase; step: the one being taken, or taken last."""
        former, self.standing = self.standing, Standing(phase, step)
        self.changes += 1
        self._first_entered.setdefault(phase, self._now())
        if former.phase != phase:
            self.on_phase()

    def enter_part(self, part: str) -> None:
        """Begin a part of the step."""
        self.standing = Standing(self.standing.phase, self.standing.step, part)
        self.changes += 1

    def start_seconds(self) -> dict[str, float]:
        """What the start was made of, until now, for the log, when all its phases have been entered."""
        began = [self._first_entered[phase] for phase in START] + [self._now()]
        lasted = (end - begin for begin, end in itertools.pairwise(began))
        return dict(zip(START.values(), lasted, strict=True))

    def fail(self) -> None:
        """This rank is on its way out by an error, and still has something to bring to an end."""
        self.fails = True
