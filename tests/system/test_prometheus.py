"""What our exporters serve, against Prometheus itself: its linter, and a server that scrapes a live training."""

import json
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import running, torchrun
from head_statistics import STATS
from prometheus_client import CollectorRegistry
from prometheus_server import Prometheus, free_ports, prometheus, wait_for
from small_faces import make_small_faces, write_run

from trainer.metrics import TrainingMetrics, exporter
from trainer.phases import PHASES

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not (PROMETHEUS and PROMTOOL), reason="no prometheus and promtool: apt-get install prometheus"),
]

BATCH_SIZE = 5  # per rank
RANKS = 2


def served_after_one_step() -> str:
    """What an exporter serves once every metric has a value."""
    registry = CollectorRegistry()
    metrics = TrainingMetrics(registry)
    metrics.describe_run({"backbone": "mobilefacenet", "world_size": "1"})
    metrics.target_steps.set(7)
    metrics.record_step(
        step=1,
        epoch=0.1,
        local_samples=BATCH_SIZE,
        stats=STATS,
        learning_rate=0.05,
        step_seconds=0.3,
        phase_seconds=dict.fromkeys(PHASES, 0.05),
    )
    metrics.accuracy.labels("lfw").set(0.99)
    metrics.checkpoint_seconds.observe(0.2)
    with (
        exporter(registry, address="127.0.0.1", port=free_ports(1), local_rank=0) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        return str(answer.read().decode())


def check_metrics(text: str) -> str:
    """promtool's complaints, one a line."""
    assert PROMTOOL is not None
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert bool(checked.returncode) == bool(checked.stderr), checked
    return checked.stdout + checked.stderr


def test_promtool_has_nothing_to_say() -> None:
    text = served_after_one_step()
    assert check_metrics(text) == ""
    spoiled = text.replace("pfc_samples_total", "pfc_samples")
    assert 'counter metrics should have "_total" suffix' in check_metrics(spoiled), "promtool looks at the names"


@dataclass(frozen=True)
class Training:
    """A live training of two ranks, scraped since before its first step."""

    process: subprocess.Popen[str]
    server: Prometheus
    output: Path
    instances: list[str]  # of rank 0 and rank 1

    def on_all_ranks(
        self, expression: str, holds: Callable[[float], bool] = lambda value: True, *, deadline_seconds: float = 30.0
    ) -> dict[str, float]:
        """Rank's address -> value, as soon as every rank has one for which ``holds``.

        Asking again is for a busy machine, where a scrape may come too late and leave a gap.
        """

        def on_all() -> dict[str, float] | None:
            assert self.process.poll() is None, f"training ended early: {self.process.communicate()[1]}"
            values = self.server.by_instance(expression)
            return values if sorted(values) == self.instances and all(map(holds, values.values())) else None

        return wait_for(on_all, f"{expression} as expected on every rank", deadline_seconds=deadline_seconds)

    def journal(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines()]


def test_a_live_training_is_scraped(tmp_path: Path) -> None:
    assert PROMETHEUS is not None
    faces, output, base = make_small_faces(tmp_path / "faces"), tmp_path / "run", free_ports(RANKS)
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=1_000_000, batch_size=BATCH_SIZE)
    overrides = [f"metrics.port={base}", "metrics.address=127.0.0.1", "checkpoint.every_steps=1000000"]
    command = torchrun(RANKS, "train", config, *(f"--set={override}" for override in overrides))
    instances = [f"127.0.0.1:{base + local_rank}" for local_rank in range(RANKS)]
    (tmp_path / "prometheus").mkdir()
    with (
        prometheus(PROMETHEUS, tmp_path / "prometheus", targets=instances) as server,
        running(command, cwd=tmp_path) as process,
    ):
        training = Training(process, server, output, instances)
        early = training.on_all_ranks("pfc_steps_total", lambda steps: steps >= 2, deadline_seconds=90)
        goal = max(early.values()) + 10
        training.on_all_ranks("pfc_steps_total", lambda steps: steps >= goal, deadline_seconds=90)
        training.on_all_ranks("up", lambda up: up == 1)
        check_counts(training)
        check_run_info(training)
        check_what_is_served(training)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        check_the_end(training, goal)
        check_last_figures(training)


def check_counts(training: Training) -> None:
    """Samples and phases keep pace with the steps; a scrape between two of a step's counters may miss one step."""
    expressions = {"pfc_samples_total": BATCH_SIZE, "pfc_step_seconds_count": 1}
    expressions |= {f'pfc_step_phase_seconds_count{{phase="{phase}"}}': 1 for phase in PHASES}
    for expression, per_step in expressions.items():
        # In one query both come from the same scrape.
        behind = training.on_all_ranks(f"{expression} / {per_step} - ignoring(phase) pfc_steps_total")
        assert all(steps in (-1, 0, 1) for steps in behind.values()), (expression, behind)
    phases = {series.labels["phase"] for series in training.server.query("pfc_step_phase_seconds_count")}
    assert phases == set(PHASES)
    training.on_all_ranks("pfc_head_collective_bytes_total", lambda count: count > 0)


def check_run_info(training: Training) -> None:
    training.on_all_ranks("pfc_run_info")
    facts = [series.labels for series in training.server.query("pfc_run_info")]
    assert sorted(labels["instance"] for labels in facts) == training.instances
    assert {(labels["world_size"], labels["num_images"], labels["num_classes"]) for labels in facts} == {
        (str(RANKS), "63", "9")
    }


def check_what_is_served(training: Training) -> None:
    """By a rank in the middle of a run: labels on everything, nothing for the linter, and that it is well."""
    for rank, instance in enumerate(training.instances):
        with urllib.request.urlopen(f"http://{instance}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert check_metrics(text) == ""
        series = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(series) > 200
        assert all('job="run"' in line and f'rank="{rank}"' in line for line in series)
        for name in (
            "pfc_memory_bytes",
            "pfc_collective_seconds_total",
            "pfc_angle_quantile_radians",
            "pfc_eta_seconds",
        ):
            assert any(line.startswith(name) for line in series), name
        with urllib.request.urlopen(f"http://{instance}/healthz", timeout=10) as answer:
            health = json.loads(answer.read())
        assert (health["ready"], health["job"], health["rank"]) == (True, "run", str(rank)), health


def check_the_end(training: Training, steps_seen: float) -> None:
    """The run stopped as asked, nothing was counted twice, and Prometheus notices that its ranks are gone."""
    last = training.journal()[-1]
    assert last["samples"] == RANKS * BATCH_SIZE * last["step"]
    assert (training.output / "checkpoints" / f"step_{int(last['step']):08d}").is_dir()
    down = dict.fromkeys(training.instances, 0.0)
    wait_for(lambda: training.server.by_instance("up") == down, "both targets are down")
    counted = training.server.by_instance("max_over_time(pfc_samples_total[10m])")
    assert sorted(counted) == training.instances
    for samples in counted.values():
        assert samples % BATCH_SIZE == 0
        assert steps_seen - 1 <= samples / BATCH_SIZE <= last["step"]
    assert set(training.server.by_instance("resets(pfc_samples_total[10m])").values()) == {0.0}


def check_last_figures(training: Training) -> None:
    """What each rank showed last is what rank 0 wrote into the journal of that step."""
    shown = {f'pfc_loss{{part="{part}"}}': f"loss_{part}" for part in ("intra", "inter")}
    shown |= {'pfc_loss{part="total"}': "loss", "pfc_learning_rate": "learning_rate"}
    for expression, key in shown.items():
        written = [line[key] for line in training.journal()]
        scraped = training.server.by_instance(f"last_over_time({expression}[10m])")
        assert sorted(scraped) == training.instances
        assert all(pytest.approx(value, rel=1e-9) in written for value in scraped.values()), (expression, scraped)
