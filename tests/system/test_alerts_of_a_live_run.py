"""The shipped rules and file_sd in a real Prometheus, and a training of two ranks of which one is killed."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import launch, ranks_of, running
from monitoring_files import MONITORING, RULE_FILES
from prometheus_server import Prometheus, free_ports, prometheus_with, wait_for
from small_faces import make_small_faces, write_run

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not PROMETHEUS, reason="no prometheus: apt-get install prometheus"),
]

RANKS = 2
JOB = "two_ranks"
OFTEN = "1s"  # between two scrapes, and between two evaluations


def hasty_configuration(folder: Path, targets: Path) -> Path:
    """The shipped configuration for target files and copies of the shipped rules, with no time between and before."""
    for path in RULE_FILES:
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if "for" in rule:
                rule["for"] = "0s"
        (folder / path.name).write_text(yaml.safe_dump(rules))
    shipped: dict[str, Any] = yaml.safe_load((MONITORING / "discovery" / "file_sd.yml").read_text(encoding="utf-8"))
    shipped["global"] = {"scrape_interval": OFTEN, "scrape_timeout": OFTEN, "evaluation_interval": OFTEN}
    shipped["rule_files"] = [str(folder / "pfc.*.yml")]
    (scrape,) = shipped["scrape_configs"]
    (discovery,) = scrape["file_sd_configs"]
    discovery["files"] = [str(targets / "*.json")]
    configuration = folder / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(shipped))
    return configuration


@dataclass(frozen=True)
class Watched:
    """The live run as Prometheus sees it."""

    server: Prometheus
    process: subprocess.Popen[str]

    def by_rank(self, expression: str) -> dict[str, float]:
        """Rank -> value of the run's series."""
        return {series.labels["rank"]: series.value for series in self.server.query(expression)}

    def takes_steps(self) -> bool:
        assert self.process.poll() is None, f"training ended early: {self.process.communicate()[1]}"
        steps = self.by_rank(f'pfc_steps_total{{job="{JOB}"}}')
        return len(steps) == RANKS and min(steps.values()) >= 2

    def up(self) -> dict[str, float]:
        return self.by_rank(f'up{{job="{JOB}"}}')

    def firing(self, alert: str) -> list[dict[str, str]]:
        """Labels of the alert's firing instances."""
        found = self.server.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
        return [series.labels for series in found]


def test_a_rank_that_is_gone_and_a_run_that_is_lost(tmp_path: Path) -> None:
    """A rank freezes: it is down, the other is not. It is killed: the run ends, and its list of targets says so, until
    the run is started again and stopped in order.
    """
    assert PROMETHEUS is not None
    faces, base, mark = make_small_faces(tmp_path / "faces"), free_ports(RANKS), f"alerts-{os.getpid()}"
    config = write_run(tmp_path / "run.toml", output=tmp_path / "run", faces=faces, steps=1_000_000, batch_size=5)
    targets, folder = tmp_path / "targets" / "run.json", tmp_path / "prometheus"
    overrides = [f"metrics.port={base}", f"metrics.job={JOB}", f"metrics.targets_file={targets}"]
    # For as long as this test may last, the other rank waits for the frozen one.
    overrides += ["checkpoint.every_steps=1000000", "failure.silence_seconds=200", "run.timeout_seconds=200"]
    command = launch(RANKS, "train", config, *(f"--set={override}" for override in overrides))
    targets.parent.mkdir()
    folder.mkdir()
    with prometheus_with(PROMETHEUS, hasty_configuration(folder, targets.parent)) as server:
        with running(command, cwd=tmp_path, mark=mark) as process:
            run = Watched(server, process)
            wait_for(run.takes_steps, "both ranks are found, scraped and take steps", deadline_seconds=120)
            wait_for(lambda: run.up() == {"0": 1.0, "1": 1.0}, "both are up")
            count = f'job:pfc_ranks:count{{job="{JOB}"}} == {RANKS}'
            wait_for(lambda: server.query(count), "recording rules are evaluated")
            wait_for(lambda: not run.firing("PfcRunLost"), "a run that has started is not lost")
            wait_for(lambda: not run.firing("PfcRankDown"), "none of its ranks is down")

            os.kill(ranks_of(mark)[1], signal.SIGSTOP)
            wait_for(lambda: run.up() == {"0": 1.0, "1": 0.0}, "rank 1 is down, rank 0 is not")
            (alert,) = wait_for(lambda: run.firing("PfcRankDown"), "the alert for the rank")
            assert (alert["job"], alert["rank"], alert["severity"]) == (JOB, "1", "page")
            wait_for(lambda: not run.firing("PfcRunLost"), "a run with a rank is not lost")

            os.kill(ranks_of(mark)[1], signal.SIGKILL)
            assert process.wait(timeout=60) == 1
            wait_for(lambda: run.up() == {"0": 0.0, "1": 0.0}, "nobody is up any more")
            (alert,) = wait_for(lambda: run.firing("PfcRunLost"), "the alert for the run")
            assert alert["job"] == JOB
            wait_for(lambda: not run.firing("PfcRankDown"), "no rank is down while others are up")
        with running(command, cwd=tmp_path, mark=f"{mark}-again") as process:
            run = Watched(server, process)
            wait_for(run.takes_steps, "both ranks are back", deadline_seconds=120)
            wait_for(lambda: not run.firing("PfcRunLost"), "the alert ends")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 75
        assert not targets.exists(), "a run that ends in order takes its list away"
        wait_for(lambda: run.up() == {}, "Prometheus forgets the targets")
        wait_for(lambda: not run.firing("PfcRunLost"), "and no alert comes")
