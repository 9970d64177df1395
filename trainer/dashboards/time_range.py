"""The stretch of time that a picture shows, and how closely Prometheus is asked about it."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from trainer.errors import ConfigError

MOST_POINTS = 500
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_EARLIEST, _LATEST = 0.0, 253_402_300_799.0  # up to the year 9999


@dataclass(frozen=True)
class TimeRange:
    """From ``start`` to ``end``, seconds since 1970."""

    start: float
    end: float

    @property
    def step(self) -> int:
        """Seconds between two points, so that about ``MOST_POINTS`` come back at most."""
        needed = (self.end - self.start) / MOST_POINTS
        return next((step for step in _STEPS if step >= needed), math.ceil(needed / _STEPS[-1]) * _STEPS[-1])

    def __str__(self) -> str:
        return f"{_text(self.start)} and {_text(self.end)}"


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration_seconds(text: str, option: str) -> float:
    """Of ``90s``, ``15m``, ``1h``, ``1h30m``, ``7d``, ``2w``. Raises ConfigError that names ``option``."""
    parts = _DURATION.findall(text)
    seconds = sum(float(count) * _SECONDS[unit] for count, unit in parts)
    if not parts or "".join(count + unit for count, unit in parts) != text or seconds <= 0:
        raise ConfigError(f"{option} {text}: not a length of time; give one such as 90s, 15m, 1h30m or 7d")
    return seconds


def moment_seconds(text: str, option: str, now: float) -> float:
    """Of ``now``, ``now-2h``, seconds since 1970 or ISO 8601 (UTC unless it says otherwise). Raises ConfigError."""
    try:
        if text == "now":
            return now
        if text.startswith("now-"):
            return now - duration_seconds(text[4:], option)
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and len(text) > 8:  # shorter digits are an ISO date: 20260131
            moment = float(text)
        else:
            parsed = datetime.fromisoformat(text)
            moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        if not _EARLIEST <= moment <= _LATEST:
            raise ValueError
    except ConfigError:
        raise
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option} {text}: not a time; give one such as 2026-01-31T14:00, 2026-01-31T14:00+02:00 or now-2h"
        ) from None
    return moment


def time_range(*, start: str | None, end: str | None, last: str | None, now: float) -> TimeRange:
    """From --from, --to and --last as given; an hour unless something else is said. Raises ConfigError."""
    if start is not None and last is not None:
        raise ConfigError("--from and --last both say where the picture begins: leave one out")
    to = now if end is None else moment_seconds(end, "--to", now)
    begin = to - duration_seconds(last or "1h", "--last") if start is None else moment_seconds(start, "--from", now)
    if begin >= to:
        raise ConfigError(f"--from {start}: not before the end, {_text(to)}; give an earlier time")
    return TimeRange(max(begin, _EARLIEST), to)
