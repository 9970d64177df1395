"""The words and figures at the top of the page: status, what ran where, and the key figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.properties import read_properties
from trainer.evaluation.store import StoredResult
from trainer.report.metrics_log import MetricsLog
from trainer.report.resolved_run import ResolvedRun

_DAY = 86400


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One key figure: what it is, its value, and a line that puts it in place."""

    name: str
    value: str
    note: str = ""


def show_seconds(seconds: float) -> str:
    """A duration in its two largest units: ``2 d 3 h``, ``5 min 20 s``, ``1.4 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in ((_DAY, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {smaller_unit}"
    return f"{whole} s"


def show_time(seconds: float | None) -> str:
    """A Unix time as UTC to the minute; empty if there is none or it is no date."""
    try:
        return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return ""


def show_bytes(count: float) -> str:
    """A size in bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def show_percent(share: float | None, digits: int = 2) -> str:
    """A share of one in percent; a dash if unknown."""
    return f"{share * 100:.{digits}f}%" if share is not None and math.isfinite(share) else "\u2013"


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_words(inner) for inner in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def total_steps(run: ResolvedRun, log: MetricsLog) -> int | None:
    """How many steps the run is to take: as configured, or from its epochs and the steps an epoch took so far."""
    steps, epochs = run.number("train", "steps"), run.number("train", "epochs")
    if steps is not None and steps > 0:
        return int(steps)
    step, epoch = log.last("step"), log.last("epoch")
    if epochs is not None and epochs > 0 and step and epoch and epoch > 0:
        return max(1, round(epochs * step / epoch))
    return None


def status(run: ResolvedRun, log: MetricsLog) -> tuple[str, str]:
    """A word for the page's badge and the sentence behind it."""
    last, total = log.last("step"), total_steps(run, log)
    if last is None:
        return "begun", "No step has been logged yet."
    if total is None:
        return "unknown", f"{last:,.0f} steps done; the configuration names no total."
    if last >= total:
        return "finished", f"All {total:,} steps done."
    return "unfinished", f"{last:,.0f} of {total:,} steps done ({last / total:.0%}): still running, or stopped."


def facts(run: ResolvedRun, log: MetricsLog) -> list[tuple[str, str]]:
    """What ran on what: (name, value) of all that is known."""
    identities = run.number("data", "num_identities") or _identities_of_property(run)
    samples, epoch = log.last("samples"), log.last("epoch")
    images = samples / epoch if samples and epoch else None
    found: list[tuple[str, str]] = []
    times = [text for text in (show_time(_first(log, "time")), show_time(log.last("time"))) if text]
    found.append(("Dates", " to ".join(dict.fromkeys(times))))
    found.append(("Device", _words(run.get("run", "device") or "")))
    world, batch = log.last("world_size"), log.last("global_batch")
    found.append(("World size", f"{world:.0f}" if world else ""))
    found.append(("Global batch", f"{batch:.0f}" if batch else ""))
    counts = [f"{identities:,.0f} identities"] if identities else []
    counts += [f"about {images:,.0f} images (samples / epochs)"] if images else []
    found.append(("Data", ", ".join(counts)))
    found.append(("Records", _words(run.get("data", "records") or "")))
    found.append(("Backbone", _words(run.get("backbone") or "")))
    found.append(("Head and loss", _words(run.get("head") or "")))
    found.append(("Optimizer", _words(run.get("optimizer") or "")))
    return [(name, value) for name, value in found if value]


def _identities_of_property(run: ResolvedRun) -> int | None:
    """The number of identities as the ``property`` file beside the first records says, if it is still there."""
    records = run.get("data", "records")
    first = records[0] if isinstance(records, list) and records else records
    if not isinstance(first, str) or "\0" in first:
        return None
    folder = Path(first) if Path(first).is_dir() else Path(first).parent
    try:
        found = read_properties(folder)
    except (DataError, OSError):
        return None
    return found.num_identities if found is not None else None


def _first(log: MetricsLog, name: str) -> float | None:
    return float(log[name][0]) if len(log) and math.isfinite(log[name][0]) else None


def best(results: Sequence[StoredResult]) -> StoredResult:
    """The result of highest accuracy, the earliest of equals; NaN counts as lowest."""
    return max(results, key=lambda result: (np.nan_to_num(result.accuracy_mean, nan=-1.0), -result.step))


def accuracy_tiles(history: Mapping[str, Sequence[StoredResult]]) -> list[Tile]:
    """Last and best accuracy and TAR at FAR of each set."""
    tiles = []
    for name, results in history.items():
        last, top = results[-1], best(results)
        tiles.append(
            Tile(
                name=f"Accuracy, {name}",
                value=show_percent(last.accuracy_mean),
                note=f"± {last.accuracy_std * 100:.2f} over folds, step {last.step:,}; "
                f"best {show_percent(top.accuracy_mean)} at step {top.step:,}",
            )
        )
        known = [(far, tar) for far, tar in last.tar_at_far.items() if tar is not None]
        if known:
            far, tar = known[-1]
            rest = ", ".join(f"{show_percent(value, 1)} at {rate}" for rate, value in known[:-1])
            tiles.append(Tile(name=f"TAR at FAR {far}, {name}", value=show_percent(tar, 1), note=rest))
    return tiles


def run_tiles(run: ResolvedRun, log: MetricsLog) -> list[Tile]:
    """Key figures of training itself: steps, time, speed, angles, traffic."""
    tiles: list[Tile] = []
    last, total = log.last("step"), total_steps(run, log)
    if last is None:
        return tiles
    epoch = log.last("epoch")
    notes = [f"of {total:,}"] if total else []
    notes += [f"{epoch:.2f} epochs"] if epoch is not None else []
    tiles.append(Tile(name="Last step", value=f"{last:,.0f}", note=", ".join(notes)))
    start, end = _first(log, "time"), log.last("time")
    if start is not None and end is not None:
        resumed = f"; {log.rewinds} restart{'s' if log.rewinds > 1 else ''} included" if log.rewinds else ""
        seconds = max(0.0, end - start) + (log["step_seconds"][0] if log["step_seconds"][0] > 0 else 0.0)
        tiles.append(Tile(name="Total time", value=show_seconds(seconds), note=f"first to last logged step{resumed}"))
    speed, step_seconds = log.median("images_per_second"), log.median("step_seconds")
    if speed is not None:
        note = f"{step_seconds * 1e3:,.0f} ms per step" if step_seconds is not None else ""
        tiles.append(Tile(name="Images/s, median", value=f"{speed:,.0f}", note=note))
    positive, negative = log.last("theta_positive"), log.last("theta_negative")
    if positive is not None and negative is not None:
        tiles.append(
            Tile(
                name="Angle to own center, last",
                value=f"{math.degrees(positive):.1f}°",
                note=f"to the others {math.degrees(negative):.1f}° on average",
            )
        )
    moved = log.median("bytes_moved")
    if moved is not None:
        tiles.append(
            Tile(
                name="Moved per step by the head",
                value=show_bytes(moved),
                note="median payload that one rank hands to collectives",
            )
        )
    return tiles
