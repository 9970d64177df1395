"""The progress of rank 0: steps, ETA, images/s; a bar on a terminal, plain lines in a log file."""

import math
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from trainer.world import World

LINE_EVERY_SECONDS = 15.0


class Progress:
    """Shows the run on ``stream`` on rank 0 and nothing on the others.

    A terminal gets a bar; anything else (a file, ``kubectl logs``, Slurm's output) a line every 15 seconds,
    because a bar is redrawn by control characters that such readers show as noise.
    """

    def __init__(self, world: World, *, total_steps: int, done_steps: int, stream: TextIO) -> None:
        self._stream = stream
        self._shown = world.is_first
        self._total = total_steps
        self._first = self._done = done_steps
        self._began = self._last_line = time.monotonic()
        self._figures = ""
        self._bar: tqdm[Any] | None = None
        if self._shown and stream.isatty():
            self._bar = tqdm(
                total=total_steps,
                initial=done_steps,
                desc="training",
                unit="step",
                file=stream,
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        """One step done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._shown and (self._done == self._total or time.monotonic() - self._last_line > LINE_EVERY_SECONDS):
            self._line()

    def figures(self, line: dict[str, Any]) -> None:
        """Show the newest averages with the next update."""
        loss = math.nan if line["loss"] is None else line["loss"]
        self._figures = (
            f"{line['images_per_second']:.0f} images/s, loss {loss:.2f}, "
            f"own center {_degrees(line['theta_positive'])}, others {_degrees(line['theta_negative'])}"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures, refresh=False)

    def say(self, text: str) -> None:
        """A line of its own; lost where the stream is a file on a full disk."""
        with suppress(OSError):
            if self._bar is not None:
                self._bar.write(text, file=self._stream)
            elif self._shown:
                print(text, file=self._stream, flush=True)

    def _line(self) -> None:
        self._last_line = time.monotonic()
        meter = tqdm.format_meter(
            self._done - self._first,
            self._total - self._first,
            self._last_line - self._began,
            bar_format="{elapsed} elapsed, {remaining} left",
        )
        self.say(f"step {self._done}/{self._total}, {meter}: {self._figures}")


def _degrees(angle: float | None) -> str:
    return "-" if angle is None else f"{math.degrees(angle):.1f}°"
