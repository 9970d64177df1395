"""The file that holds what a machine was measured to do."""

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

from data_pipeline.pending_file import write_file
from trainer.errors import ConfigError
from trainer.plan.local_ranks import local_ranks, outcome
from trainer.plan.rates import Rates

VERSION = 4
DEADLINE_SECONDS = 300.0
Calibration = dict[int, Rates]
"""By number of ranks on the machine, each with an equal part of its cores."""


def calibrate(path: Path, cores: int, *, processor_time: bool = False) -> Calibration:
    """Measure this machine, whose ranks have ``cores`` in all: alone with all of them, and a rank a core; write it.

    processor_time: that of the processor, spread evenly over a rank's threads, in place of the wall clock's: for a
    machine on which others work.

    Raises ConfigError where it cannot be measured or written.
    """
    require_writable(path)
    from trainer.plan.heap import with_heap  # brings what only trainings need

    found: Calibration = {}
    with tempfile.TemporaryDirectory(prefix="pfc-plan-", dir=path.absolute().parent) as folder:
        for ranks in sorted({1, cores}):
            words = ["trainer.plan.probe", "--threads", str(max(1, cores // ranks)), "--folder", folder]
            words += ["--processor-time"] if processor_time else []
            with local_ranks(words, ranks) as processes:
                printed = outcome(processes, deadline_seconds=DEADLINE_SECONDS)
            probed = Rates.from_dict(json.loads(printed.splitlines()[-1]), "the measurement")
            inner = Path(folder) / str(ranks)
            inner.mkdir()
            found[ranks] = with_heap(probed, ranks, inner, phases=not processor_time)
    layouts = {str(ranks): rates.to_dict() for ranks, rates in found.items()}
    machine = {"machine": platform.node(), "processor": platform.machine(), "cores": cores}
    write_file(path, json.dumps({"version": VERSION, **machine, "layouts": layouts}, indent=2) + "\n")
    return found


def require_writable(path: Path) -> None:
    """Raises ConfigError where no calibration can be written."""
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise ConfigError(f"--calibration {path}: cannot be written there; name a file in a folder that exists")


def calibration_values(path: Path) -> dict[str, Any]:
    """What the file holds, ``layouts`` by numbers of ranks. Raises ConfigError, one line, where it is none."""
    where = f"--calibration {path}"
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file; pfc plan --calibrate --calibration {path} makes it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: not readable as JSON ({error})") from None
    if not isinstance(values, dict) or values.get("version") != VERSION or not isinstance(values.get("layouts"), dict):
        raise ConfigError(f"{where}: no calibration of this version; measure again with pfc plan --calibrate")
    layouts = values["layouts"]
    if not layouts or not all(key.isdecimal() and int(key) > 0 for key in layouts):
        raise ConfigError(f"{where}: its layouts are not numbers of ranks; measure again with pfc plan --calibrate")
    return values


def read_calibration(path: Path) -> Calibration:
    """Raises ConfigError, one line, for anything but such a file."""
    layouts = calibration_values(path)["layouts"]
    return {int(key): Rates.from_dict(rates, f"--calibration {path}") for key, rates in layouts.items()}


def for_ranks(calibration: Calibration, ranks: int) -> Rates:
    """Of the layout with the nearest number of ranks on a machine."""
    return calibration[min(calibration, key=lambda known: (abs(known - ranks), known))]
