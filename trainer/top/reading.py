"""What one endpoint served at one time: numbers by metric and labels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from trainer.top.fetch import EndpointError

PREFIXES = (b"pfc_", b"process_", b"# TYPE pfc_", b"# TYPE process_")
OWN_LABELS = ("job", "rank")  # the same on every series of a rank
LONGEST_TEXT = 60


def printable(text: str) -> str:
    """Somebody else's text for a terminal: no control characters, no end of it."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: LONGEST_TEXT + 1])
    return shown if len(shown) <= LONGEST_TEXT else shown[: LONGEST_TEXT - 1] + "…"


@dataclass(frozen=True)
class Reading:
    """time: monotonic seconds; wall_time: since 1970. job, rank: as the rank says itself, None where it does not.

    Numbers that are not there, or not finite, are None: "-" to the reader.
    """

    time: float
    wall_time: float
    job: str | None
    rank: int | None
    series: Mapping[str, Mapping[frozenset[tuple[str, str]], float]]

    def value(self, name: str, **labels: str) -> float | None:
        """Of the one series with exactly these labels."""
        found = self.series.get(name, {}).get(frozenset(labels.items()), math.nan)
        return found if math.isfinite(found) else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """The finite values by one label."""
        values = {}
        for labels, value in self.series.get(name, {}).items():
            key = dict(labels).get(label)
            if key is not None and math.isfinite(value):
                values[key] = value
        return values

    def total(self, name: str) -> float | None:
        """Over all labels."""
        values = [value for value in self.series.get(name, {}).values() if math.isfinite(value)]
        return sum(values) if values else None

    def facts(self, name: str) -> dict[str, str]:
        """The labels of an info metric."""
        for labels in self.series.get(name, {}):
            return dict(labels)
        return {}


def parse_reading(body: bytes, *, time: float, wall_time: float) -> Reading:
    """Raises EndpointError for what is no metrics of this project."""
    lines = [line for line in body.splitlines() if line.startswith(PREFIXES) and b"_bucket{" not in line]
    series: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    own: dict[str, str] = {}
    try:
        text = b"\n".join([*lines, b""]).decode("utf-8")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {printable(key): printable(value) for key, value in sample.labels.items()}
                for name in OWN_LABELS:
                    if name in labels:
                        own[name] = labels.pop(name)
                series.setdefault(sample.name, {})[frozenset(labels.items())] = float(sample.value)
    except Exception as error:  # the parser was written for honest servers: what it raises is not one type
        raise EndpointError("its answer is no Prometheus text") from error
    if not any(name.startswith("pfc_") for name in series):
        raise EndpointError("serves metrics, but none of pfc")
    rank = own.get("rank", "")
    return Reading(time, wall_time, own.get("job"), int(rank) if rank.isascii() and rank.isdigit() else None, series)
