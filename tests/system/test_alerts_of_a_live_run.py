"""The shipped rules and file_sd in a real Prometheus, and a training of two ranks of which one is killed."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import launch, ranks_of, running
from prometheus_server import Prometheus, free_ports, prometheus_with, wait_for
from small_faces import make_small_faces, write_run

from trainer.scrape_targets import write_targets

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not PROMETHEUS, reason="no prometheus: apt-get install prometheus"),
]

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RANKS = 2
JOB = "two_ranks"
OFTEN = "250ms"  # between two scrapes and two evaluations: the other rank outlives the killed one by little


def hasty_configuration(folder: Path, targets: Path) -> Path:
    """The shipped configuration for target files and copies of the shipped rules, with no time between and before."""
    for name in ("pfc.recording.yml", "pfc.alerts.yml"):
        rules = yaml.safe_load((MONITORING / "rules" / name).read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if "for" in rule:
                rule["for"] = "0s"
        (folder / name).write_text(yaml.safe_dump(rules))
    shipped: dict[str, Any] = yaml.safe_load((MONITORING / "discovery" / "file_sd.yml").read_text())
    shipped["global"] = {"scrape_interval": OFTEN, "scrape_timeout": OFTEN, "evaluation_interval": OFTEN}
    shipped["rule_files"] = [str(folder / "pfc.*.yml")]
    (scrape,) = shipped["scrape_configs"]
    (discovery,) = scrape["file_sd_configs"]
    discovery["files"] = [str(targets / "*.json")]
    configuration = folder / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(shipped))
    return configuration


def alerts(server: Prometheus, name: str) -> list[dict[str, str]]:
    return [series.labels for series in server.query(f'ALERTS{{alertname="{name}", alertstate="firing"}}')]


def test_a_killed_rank_is_told_from_a_run_that_ended(tmp_path: Path) -> None:
    assert PROMETHEUS is not None
    faces, base, mark = make_small_faces(tmp_path / "faces"), free_ports(RANKS), f"alerts-{os.getpid()}"
    config = write_run(tmp_path / "run.toml", output=tmp_path / "run", faces=faces, steps=1_000_000, batch_size=5)
    overrides = [f"metrics.port={base}", "metrics.address=127.0.0.1", "checkpoint.every_steps=1000000"]
    command = launch(RANKS, "train", config, *(f"--set={override}" for override in overrides))
    addresses = [f"127.0.0.1:{base + local_rank}" for local_rank in range(RANKS)]
    for name in ("targets", "prometheus"):
        (tmp_path / name).mkdir()
    configuration = hasty_configuration(tmp_path / "prometheus", tmp_path / "targets")
    with prometheus_with(PROMETHEUS, configuration) as server:
        with running(command, cwd=tmp_path, mark=mark) as process:

            def by_rank(expression: str) -> dict[str, float]:
                found = server.query(expression)
                return {series.labels["rank"]: series.value for series in found if series.labels["job"] == JOB}

            def all_take_steps() -> bool:
                assert process.poll() is None, f"training ended early: {process.communicate()[1]}"
                steps = by_rank("pfc_steps_total")
                return len(steps) == RANKS and min(steps.values()) >= 2

            with write_targets(tmp_path / "targets" / "run.json", addresses, {"job": JOB}):
                wait_for(all_take_steps, "both ranks are scraped and take steps", deadline_seconds=120)
                wait_for(lambda: by_rank("up") == {"0": 1.0, "1": 1.0}, "both are up")
                wait_for(
                    lambda: [each.value for each in server.query(f'job:pfc_ranks:count{{job="{JOB}"}}')] == [RANKS],
                    "rules are evaluated",
                )
                assert not alerts(server, "PfcRankDown")
                os.kill(ranks_of(mark)[1], signal.SIGKILL)
                import time; t0=time.monotonic(); process.wait(60); print("ENDED AFTER", time.monotonic()-t0)
                wait_for(lambda: by_rank("up") == {"0": 0.0, "1": 0.0}, "nobody is up any more")
                print(server.query('count_over_time(up[1m])'), server.query('sum_over_time(up[10s])'), server.query('max_over_time(ALERTS{alertname="PfcRankDown"}[2m])'), process.returncode)
                assert 0
