"""Two clocks at once: the wall's, and what the processor spent on this process."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Seconds:
    """wall: what a user waits. cpu: of all threads of this process; time that others take from a shared machine is
    not in it, nor is waiting.
    """

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)

    def __truediv__(self, count: int) -> "Seconds":
        return Seconds(self.wall / count, self.cpu / count)


def both_clocks() -> Seconds:
    """Now, from an arbitrary beginning."""
    return Seconds(time.perf_counter(), time.process_time())
