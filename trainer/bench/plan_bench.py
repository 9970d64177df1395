"""Real short trainings beside what ``pfc plan`` says of them."""

import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.bench.plan_problem import Compared, Size
from trainer.bench.step_records import write_records
from trainer.config import config_from
from trainer.plan.calibration import Calibration, for_ranks
from trainer.plan.memory import memory_of
from trainer.plan.problem import Problem
from trainer.plan.short_training import UNTOLD, values_of, watched_training
from trainer.plan.timing import BACKWARD, FORWARD, Timing, timing_of


def bench_plan(
    sizes: Sequence[Size], calibration: Calibration, folder: Path, *, steps: int, processor_time: bool
) -> Iterator[Compared]:
    """One after the other; ``folder`` is empty and removed by the caller. Raises ConfigError where a run fails."""
    for number, size in enumerate(sizes):
        inner = folder / str(number)
        inner.mkdir()
        values = _values(size, inner, steps)
        write_records(inner / "train.rec", num_identities=size.classes, image_size=112, seed=0)
        watched = watched_training(values, size.ranks, inner)
        problem = Problem(config_from(values, "pfc bench plan"), size.classes, None, size.ranks, size.ranks)
        rates = for_ranks(calibration, size.ranks)
        told = watched.lines[1:]
        modes = _modes(told)
        timing = timing_of(problem, rates, mode=modes if modes in ("screened", "dense") else None)
        memory = memory_of(problem, rates, on_cpu=True)
        wall = statistics.median(line["step_seconds"] for line in told)
        threads = max(1, (os.cpu_count() or 1) // size.ranks)
        yield Compared(
            size,
            modes,
            timing.step,
            watched.processor / threads if processor_time else wall,
            memory.device(worst=modes == "dense"),
            watched.peak,
            {} if processor_time else _parts(timing, told),
        )


def _values(size: Size, folder: Path, steps: int) -> dict[str, Any]:
    values = values_of(folder / "train.rec", size.classes, size.batch, steps, folder / "run")
    values["backbone"] = {"name": size.backbone, "precision": size.precision}
    if size.zero is not None:
        values["train"]["engine"] = "deepspeed"
        values["deepspeed"] = {"zero_optimization": {"stage": size.zero}}
    if size.saves:
        values["checkpoint"] = {"every_steps": UNTOLD}
    return values


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
        "forward": sum(parts.get(each, 0.0) for each in FORWARD),
        "head + optimizer": sum(
            parts.get(each, 0.0) for each in ("all-gather", "head", "reduce-scatter", "optimizer", "DeepSpeed step")
        ),
        "backward": sum(parts.get(each, 0.0) for each in BACKWARD),
        "other": parts["between steps"],
    }

    def measured(*names: str) -> float:
        return float(statistics.median(sum(line["phase_seconds"].get(name, 0.0) for name in names) for line in lines))

    return {name: (seconds, measured(*name.split(" + "))) for name, seconds in computed.items()}
