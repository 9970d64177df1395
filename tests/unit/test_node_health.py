"""What Docker's health check says of a node's ranks, asked of real exporters."""

import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from commands import environment
from prometheus_client import CollectorRegistry
from prometheus_server import free_ports

from deploy.launch.health import complaints
from trainer.metrics import exporter
from trainer.metrics.health import Verdict

pytestmark = pytest.mark.unit


def config(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_each_rank_that_is_not_well_or_not_there_is_named(tmp_path: Path) -> None:
    port = free_ports(3)
    run = config(tmp_path, f'[metrics]\nport = {port}\naddress = "0.0.0.0"\n')

    def serving(local_rank: int, verdict: Verdict) -> AbstractContextManager[int | None]:
        registry, address = CollectorRegistry(), "127.0.0.1"
        return exporter(registry, address=address, port=port, local_rank=local_rank, health=lambda: verdict)

    with serving(0, Verdict(True, "step 3")), serving(1, Verdict(False, "no step for 40 s")):
        assert complaints(run, 1) == []
        assert complaints(run, 2) == ["local rank 1: no step for 40 s"]
        of_second, of_third = complaints(run, 3)
        assert of_second == "local rank 1: no step for 40 s"
        assert of_third.startswith(f"local rank 2: http://127.0.0.1:{port + 2}/healthz: ")


def test_a_run_without_metrics_has_nothing_to_complain_of(tmp_path: Path) -> None:
    assert complaints(config(tmp_path, '[run]\noutput = "x"\n'), 8) == []


def test_as_docker_starts_it(tmp_path: Path) -> None:
    run = config(tmp_path, f"[metrics]\nport = {free_ports(1)}\n")
    absent = tmp_path / "none.toml"
    plain = tmp_path / "plain.toml"
    plain.write_text("[run]\n")
    for path, code, said in (
        (run, 1, "local rank 0: http://127.0.0.1:"),
        (absent, 1, f"{absent}: cannot be read"),
        (plain, 0, "well"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "deploy.launch.health", "1", str(path)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, "")
        assert done.stdout.startswith(said)
