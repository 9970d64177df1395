"""How much memory activations take in real trainings: a heap has holes, and libraries load when they are first used.

What a short training's largest resident size holds beyond its libraries, its head and its backbone, over the peak that
is computed from shapes. Measured in trainings, not in passes alone: loader, optimizer and head cut the heap, too.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.bench.step_records import write_records
from trainer.config import config_from
from trainer.plan.memory import batches, computed_activations, held, memory_of
from trainer.plan.phases_of_training import Trained, with_phases, with_zero_phases
from trainer.plan.probe_backbones import BACKBONES
from trainer.plan.problem import Problem
from trainer.plan.rates import STAGES, Rates, family
from trainer.plan.short_training import values_of, watched_training

CLASSES = 2_000
STEPS = 4  # after the first two; the heap has found its size by then
LOW = ("mobilefacenet", "iresnet18")  # also trained in 16 bits; a training takes 8 s
ZERO_BACKBONE = "iresnet18"
MOST_THREADS = 4  # for which a rank gets more images


def with_heap(rates: Rates, ranks: int, folder: Path, *, phases: bool = True) -> Rates:
    """``rates`` with the pages of libraries in ``process``, ``activations``, and where there are several ranks what
    DeepSpeed adds, from trainings of so many ranks. phases: also how long the phases of their steps take.

    Raises ConfigError where a training fails.
    """
    records = folder / "heap.rec"
    write_records(records, num_identities=CLASSES, image_size=112, seed=0)
    images = min(MOST_THREADS, max(1, len(os.sched_getaffinity(0)) // ranks))
    found: dict[tuple[str, str], Trained] = {}
    for precision, names in (("float32", BACKBONES), ("bfloat16", LOW)):
        for name in names:
            tables = {"backbone": {"name": name, "precision": precision}}
            batch = BACKBONES[name] * images
            found[precision, name] = _train(records, batch, ranks, tables, folder / f"{name}_{precision}")
    files = max(each.watched.files for each in found.values())
    left: dict[str, dict[str, float]] = {"float32": {}, "bfloat16": {}}
    for (precision, name), each in found.items():
        own = each.watched.peak - each.watched.files - rates.host_process
        activations = own - held(each.problem, on_cpu=True) - batches(each.problem)
        left[precision][family(name)] = max(1.0, activations / computed_activations(each.problem))
    process = rates.host_process + files
    rates = replace(
        rates,
        process=process,
        host_process=process,
        activations=left["float32"],
        activations16=left["float32"] | left["bfloat16"],
    )
    if phases:
        rates = with_phases(rates, found.values())
    if ranks == 1 or not rates.deepspeed:
        return rates
    return _with_zero(rates, found["float32", ZERO_BACKBONE], records, folder, phases=phases)


def _with_zero(rates: Rates, plain: Trained, records: Path, folder: Path, *, phases: bool) -> Rates:
    """What DeepSpeed adds to a training like ``plain``."""
    split: dict[str, Trained] = {}
    for stage in STAGES:
        tables = {
            "backbone": {"name": ZERO_BACKBONE},
            "train": {"engine": "deepspeed"},
            "deepspeed": {"zero_optimization": {"stage": int(stage)}},
        }
        problem = plain.problem
        split[stage] = _train(records, problem.batch, problem.ranks, tables, folder / f"zero_{stage}")
    memory = dict[str, float]()
    for stage, each in split.items():
        planned = memory_of(each.problem, rates, on_cpu=True).device(worst=False) - rates.zero_memory[stage]
        memory[stage] = max(0.0, each.watched.peak - planned)
    # One after the other their runs differ by 90 MiB either way, and they work alike: the mean is what repeats.
    memory["1"] = memory["2"] = (memory["1"] + memory["2"]) / 2.0
    rates = replace(rates, zero_memory=memory)
    return with_zero_phases(rates, plain, split) if phases else rates


def _train(records: Path, batch: int, ranks: int, tables: dict[str, Any], folder: Path) -> Trained:
    folder.mkdir()
    values = values_of(records, CLASSES, batch, STEPS, folder / "run")
    for table, keys in tables.items():
        values[table] = values.get(table, {}) | keys
    problem = Problem(config_from(values, "pfc plan --calibrate"), CLASSES, None, ranks, ranks)
    return Trained(problem, watched_training(values, ranks, folder))
