"""How much memory activations take in real trainings: a heap has holes, and libraries load when they are first used.

What a short training's largest resident size holds beyond its libraries, its head and its backbone, over the peak that
is computed from shapes. Measured in trainings, not in passes alone: loader, optimizer and head cut the heap, too.
"""

from dataclasses import replace
from pathlib import Path

from trainer.bench.step_records import write_records
from trainer.config import config_from
from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.memory import batches, held
from trainer.plan.probe_backbones import BACKBONES
from trainer.plan.problem import Problem
from trainer.plan.rates import Rates, family
from trainer.plan.short_training import values_of, watched_training

CLASSES = 2_000
STEPS = 4  # after the first two; the heap has found its size by then


def with_heap(rates: Rates, ranks: int, folder: Path) -> Rates:
    """``rates`` with the pages of libraries in ``process``, and ``activations``, from trainings of so many ranks.

    Raises ConfigError where a training fails.
    """
    records = folder / "heap.rec"
    write_records(records, num_identities=CLASSES, image_size=112, seed=0)
    left, files = dict[str, float](), 0.0
    for name, batch in BACKBONES.items():
        inner = folder / name
        inner.mkdir()
        values = values_of(records, CLASSES, batch, STEPS, inner / "run") | {"backbone": {"name": name}}
        watched = watched_training(values, ranks, inner)
        files = max(files, watched.files)
        problem = Problem(config_from(values, "pfc plan --calibrate"), CLASSES, None, ranks, ranks)
        cost = backbone_cost(problem.config.backbone, problem.config.data.image_size)
        own = watched.peak - watched.files - rates.host_process
        activations = own - held(problem, on_cpu=True) - batches(problem)
        left[family(name)] = max(1.0, activations / (cost.peak * batch / cost.images))
    process = rates.host_process + files
    return replace(rates, process=process, host_process=process, activations=left)
