"""Prometheus metrics: names, values, exporter; and the journal behind the report."""

import json
import math
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from head_statistics import STATS
from prometheus_client import CollectorRegistry

from trainer.errors import ConfigError
from trainer.journal import Journal, forget_after
from trainer.metrics import TrainingMetrics, exporter
from trainer.phases import PhaseClock

pytestmark = pytest.mark.unit


def record(metrics: TrainingMetrics, step: int) -> None:
    metrics.record_step(
        step=step,
        epoch=step / 10,
        local_samples=8,
        stats=STATS,
        learning_rate=0.05,
        step_seconds=0.3,
        phase_seconds={"data": 0.1, "head": 0.2},
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_step_moves_every_metric() -> None:
    registry = CollectorRegistry()
    metrics = TrainingMetrics(registry)
    record(metrics, 1)
    record(metrics, 2)
    for name, labels, value in [
        ("pfc_steps_total", {}, 2),
        ("pfc_samples_total", {}, 16),
        ("pfc_step", {}, 2),
        ("pfc_loss", {"part": "intra"}, -5.0),
        ("pfc_loss", {"part": "inter"}, 2.0),
        ("pfc_angle_radians", {"pair": "negative"}, 1.5),
        ("pfc_head_steps_total", {"mode": "dense"}, 2),
        ("pfc_head_collective_bytes_total", {}, 2000),
        ("pfc_learning_rate", {}, 0.05),
        ("pfc_step_phase_seconds_count", {"phase": "head"}, 2),
        ("pfc_step_phase_seconds_sum", {"phase": "head"}, 0.4),
    ]:
        assert registry.get_sample_value(name, labels) == pytest.approx(value), name


def test_all_names_start_with_pfc() -> None:
    registry = CollectorRegistry()
    TrainingMetrics(registry)
    names = [family.name for family in registry.collect()]
    assert len(names) > 15
    assert all(name.startswith("pfc_") for name in names)


def test_exporter_serves_its_own_registry_on_base_port_plus_local_rank() -> None:
    registry = CollectorRegistry()
    record(TrainingMetrics(registry), 1)
    base = free_port() - 1
    with exporter(registry, address="127.0.0.1", port=base, local_rank=1) as port:
        assert port == base + 1
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert "pfc_steps_total 1.0" in text
        with (
            pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be opened .* choose another metrics.port"),
            exporter(CollectorRegistry(), address="127.0.0.1", port=base, local_rank=1),
        ):
            pass
    with socket.socket() as probe:  # the port is free again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", base + 1))


def test_journal_averages_between_lines_and_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path, constants={"world_size": 2, "global_batch": 16})
    for loss in (-2.0, -4.0):
        stats = replace(STATS, loss=loss, theta_negative=math.nan)
        journal.add(stats, samples=16, step_seconds=0.5, phase_seconds={"data": 0.1})
    journal.write(time=5.0, step=2, epoch=0.2, samples=32, learning_rate=0.1)
    journal.add(STATS, samples=16, step_seconds=2.0, phase_seconds={"data": 0.1})
    journal.write(time=7.0, step=3, epoch=0.3, samples=48, learning_rate=0.1)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["loss"], first["images_per_second"], first["theta_negative"]) == (-3.0, 32.0, None)
    assert (second["loss"], second["images_per_second"], second["mode_steps"]) == (-3.0, 8.0, {"dense": 1})


def test_journal_forgets_steps_after_the_checkpoint_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30}\n{"step": 4')
    forget_after(path, 20)
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'
    forget_after(tmp_path / "absent.jsonl", 20)
    assert sorted(tmp_path.iterdir()) == [path]


def test_phases_add_up_to_the_step() -> None:
    now = 0.0

    def clock() -> float:
        return now

    phases = PhaseClock(clock)
    for seconds, name in ((1.0, "data"), (2.0, "head"), (0.5, "data")):
        with phases.phase(name):
            now += seconds
    now += 0.25
    total, parts = phases.finish_step()
    assert total == 3.75
    assert parts == {"data": 1.5, "forward": 0, "head": 2.0, "backward": 0, "optimizer": 0, "other": 0.25}
    now += 100.0  # an evaluation
    phases.restart()
    with phases.phase("head"):
        now += 1.0
    assert phases.finish_step()[0] == 1.0
