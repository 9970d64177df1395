"""Real short trainings beside what ``pfc plan`` says of them."""

import json
import math
import os
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.bench.plan_problem import Compared, Size
from trainer.bench.step_records import write_records
from trainer.config import config_from
from trainer.plan.calibration import Calibration, for_ranks
from trainer.plan.local_ranks import local_ranks, outcome
from trainer.plan.memory import memory_of
from trainer.plan.problem import Problem
from trainer.plan.timing import Timing, timing_of

DEADLINE_SECONDS = 240.0
UNTOLD = 2  # first steps: page faults, and what libraries do once


def bench_plan(
    sizes: Sequence[Size], calibration: Calibration, folder: Path, *, steps: int, processor_time: bool
) -> Iterator[Compared]:
    """One after the other; ``folder`` is empty and removed by the caller. Raises ConfigError where a run fails."""
    for number, size in enumerate(sizes):
        inner = folder / str(number)
        inner.mkdir()
        values = _values(size, inner, steps)
        write_records(inner / "train.rec", num_identities=size.classes, image_size=112, seed=0)
        lines, measured_memory, processor = _train(size, values, inner)
        problem = Problem(config_from(values, "pfc bench plan"), size.classes, None, size.ranks, size.ranks)
        rates = for_ranks(calibration, size.ranks)
        told = lines[1:]
        modes = _modes(told)
        timing = timing_of(problem, rates, mode=modes if modes in ("screened", "dense") else None)
        memory = memory_of(problem, rates, on_cpu=True)
        wall = statistics.median(line["step_seconds"] for line in told)
        threads = max(1, (os.cpu_count() or 1) // size.ranks)
        yield Compared(
            size,
            modes,
            timing.step,
            processor / threads if processor_time else wall,
            memory.device(worst=modes == "dense"),
            measured_memory,
            {} if processor_time else _parts(timing, told),
        )


def _values(size: Size, folder: Path, steps: int) -> dict[str, Any]:
    return {
        "run": {"output": str(folder / "run"), "device": "cpu"},
        "data": {"records": str(folder / "train.rec"), "num_identities": size.classes, "batch_size": size.batch},
        "train": {"steps": UNTOLD + steps},
        "backbone": {"name": size.backbone},
        "checkpoint": {"every_steps": 0},
        "log": {"every_steps": UNTOLD},
    }


def _train(size: Size, values: dict[str, Any], folder: Path) -> tuple[list[dict[str, Any]], float, float]:
    """The lines of ``metrics.jsonl``, each the mean of ``UNTOLD`` steps; of rank 0 its largest resident size and
    its seconds of processor in a step.
    """
    path = folder / "run.toml"
    path.write_text(config_from(values, "pfc bench plan").to_toml(), encoding="utf-8")
    metrics = folder / "run" / "metrics.jsonl"
    largest, spent = 0.0, dict[int, float]()
    with local_ranks(["trainer", "train", str(path)], size.ranks) as processes:

        def watch() -> None:
            nonlocal largest
            with suppress(OSError, ValueError, IndexError):
                # fields after the name in parentheses: user and system time are the 12th and 13th
                counts = Path(f"/proc/{processes[0].pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                ticks = int(counts[11]) + int(counts[12])
                spent.setdefault(metrics.read_text(encoding="utf-8").count("\n"), ticks / os.sysconf("SC_CLK_TCK"))
            largest = max(largest, _peak(processes[0]))

        outcome(processes, deadline_seconds=DEADLINE_SECONDS, watch=watch)
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    # The last line comes with the end of the run.
    known = sorted(count for count in spent if 1 <= count < len(lines))
    steps = UNTOLD * (known[-1] - known[0]) if known else 0
    processor = (spent[known[-1]] - spent[known[0]]) / steps if steps else math.nan
    return lines, largest, processor


def _peak(process: "subprocess.Popen[str]") -> float:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0.0


def _modes(lines: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for line in lines:
        for mode, count in line["mode_steps"].items():
            counts[mode] = counts.get(mode, 0) + count
    found = [mode for mode, count in counts.items() if count]
    return found[0] if len(found) == 1 else "both" if found else ""


def _parts(timing: Timing, lines: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """By the loop's own phases: in them the exchanges belong to what they happen in."""
    parts = timing.parts
    computed = {
        "data": parts["decode"],
        "forward": parts["forward"],
        "head + optimizer": sum(parts[each] for each in ("all-gather", "head", "reduce-scatter", "optimizer")),
        "backward": parts["backward"] + parts["gradient all-reduce"],
    }

    def measured(*names: str) -> float:
        return float(statistics.median(sum(line["phase_seconds"].get(name, 0.0) for name in names) for line in lines))

    return {name: (seconds, measured(*name.split(" + "))) for name, seconds in computed.items()}
