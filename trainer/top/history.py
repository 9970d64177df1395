"""What moved between two refreshes: rates and shares from a rank's counters."""

from collections import deque
from collections.abc import Sequence

from trainer.top.reading import Reading

WINDOW_SECONDS = 30.0
LOSSES = 40


class History:
    """The readings of one rank over the last ``WINDOW_SECONDS``, and the losses of the last refreshes.

    Counters that have fallen are those of a new process: nothing before them counts. With a single reading everything
    is the mean since the process began.
    """

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()
        self.losses: deque[float] = deque(maxlen=LOSSES)

    def add(self, reading: Reading) -> None:
        """The newest one."""
        if self._readings and _began_anew(self._readings[-1], reading):
            self._readings.clear()
        self._readings.append(reading)
        while len(self._readings) > 2 and reading.time - self._readings[0].time > WINDOW_SECONDS:
            self._readings.popleft()
        loss = reading.value("pfc_loss", part="total")
        if loss is not None:
            self.losses.append(loss)

    @property
    def last(self) -> Reading:
        """The newest reading."""
        return self._readings[-1]

    @property
    def images_per_second(self) -> float | None:
        """Of this rank; None before its first step."""
        if len(self._readings) == 1:
            shown = self.last.value("pfc_images_per_second")
            if shown is not None:
                return shown
            samples, seconds = self.last.value("pfc_samples_total"), self.last.value("pfc_step_seconds_sum")
            return samples / seconds if samples is not None and seconds else None
        samples = self._moved("pfc_samples_total")
        seconds = self.last.time - self._readings[0].time
        return None if samples is None or seconds <= 0 else samples / seconds

    @property
    def step_seconds(self) -> float | None:
        """Mean duration of a step: of those of the window, else of all."""
        for since_start in (False, True):
            steps = self._moved("pfc_step_seconds_count", since_start=since_start)
            seconds = self._moved("pfc_step_seconds_sum", since_start=since_start)
            if steps and seconds is not None:
                return seconds / steps
        return None

    def shares(self, name: str, label: str) -> dict[str, float]:
        """How what a counter gained divides over the values of ``label``; of all it has where it gained nothing."""
        now = self.last.by(name, label)
        then = self._readings[0].by(name, label) if len(self._readings) > 1 else {}
        gained = {key: value - then.get(key, 0.0) for key, value in now.items()}
        chosen = gained if sum(gained.values()) > 0 else now
        total = sum(chosen.values())
        return {key: value / total for key, value in chosen.items()} if total > 0 else {}

    def _moved(self, name: str, *, since_start: bool = False) -> float | None:
        now = self.last.value(name)
        if now is None or since_start or len(self._readings) == 1:
            return now
        return now - (self._readings[0].value(name) or 0.0)


COUNTERS: Sequence[str] = ("pfc_steps_total", "pfc_samples_total", "pfc_step_seconds_count")


def _began_anew(before: Reading, after: Reading) -> bool:
    starts = before.value("process_start_time_seconds"), after.value("process_start_time_seconds")
    if None not in starts and starts[0] != starts[1]:
        return True
    return any((after.value(name) or 0.0) < (before.value(name) or 0.0) for name in COUNTERS)
