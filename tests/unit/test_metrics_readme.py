"""The table of metrics in trainer/metrics/README.md is what ranks export: names, types and labels."""

from pathlib import Path

import pytest
import torch
from metrics_table import told_metrics
from prometheus_client import CollectorRegistry
from small_faces import make_small_faces

from data_pipeline import make_loader
from partial_fc import CenterSGD, PartialFC
from trainer.engine import DDPEngine
from trainer.metrics import Health, LiveMetrics, TrainingMetrics
from trainer.metrics.recent import RecentSteps
from trainer.pulse import Pulse
from trainer.stragglers import Stragglers
from trainer.world import World

pytestmark = pytest.mark.unit


def exported(folder: Path) -> dict[str, str]:
    """Name as in Prometheus -> type, of everything that a rank registers."""
    registry = CollectorRegistry()
    TrainingMetrics(registry)
    head, backbone, recent, pulse = PartialFC(10, 4), torch.nn.Linear(4, 4), RecentSteps(lambda: 0.0), Pulse()
    world = World(0, 1, 0, torch.device("cpu"))
    LiveMetrics(
        recent=recent,
        health=Health(pulse, recent, factor=10.0, pause_seconds=300.0),
        head=head,
        center_optimizer=CenterSGD(head),
        loader=make_loader(make_small_faces(folder) / "train.rec", batch_size=4, decoder="cpu", image_size=32),
        engine=DDPEngine(backbone, torch.optim.SGD(backbone.parameters(), lr=0.1), world, image_size=32),
        total_steps=10,
        bare_flops=1e9,
        registry=registry,
    )
    Stragglers(world, limit=1.5, registry=registry, log=None, say=print, name=str)  # type: ignore[arg-type]
    suffix = {"counter": "_total", "info": "_info"}
    return {family.name + suffix.get(family.type, ""): family.type for family in registry.collect()}


def test_every_metric_is_told_and_none_that_is_not_there(tmp_path: Path) -> None:
    assert told_metrics() == exported(tmp_path / "faces")
