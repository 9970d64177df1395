"""The run's configuration as the trainer reads it: checked by the trainer itself, in a process of its own."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.submit.errors import SubmitError

PREFIX = "pfc: error: "
REACHABLE = 'metrics.address="0.0.0.0"'
"""In containers, whose own loopback neither Prometheus nor probes reach."""


@dataclass(frozen=True)
class CheckedRun:
    """What a target has to know. toml: the configuration, overrides applied, paths absolute.

    device: "auto", "cpu", "cuda" or "cuda:N". metrics_port: of local rank 0, None: no metrics.
    """

    toml: str
    output: Path
    device: str
    metrics_port: int | None


def check_with_trainer(
    config: Path, overrides: Sequence[str], *, world_size: int, with_data: bool, in_containers: bool = False
) -> CheckedRun:
    """Raises SubmitError with the trainer's own line. in_containers: exporters listen to others unless it is said."""
    if in_containers and not says_address(config):
        overrides = [REACHABLE, *overrides]  # of two, the later one holds
    words = [sys.executable, "-m", "trainer", "check", str(config), "--world-size", str(world_size), "--json"]
    words += [part for override in overrides for part in ("--set", override)]
    done = subprocess.run([*words, *([] if with_data else ["--no-data"])], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["the trainer's check said nothing"]
        told = next((line for line in lines if line.startswith(PREFIX)), lines[-1])
        raise SubmitError(told.removeprefix(PREFIX), 2 if done.returncode == 2 else 1)
    answer = json.loads(done.stdout)
    run = answer["config"]["run"]
    return CheckedRun(
        toml=answer["toml"],
        output=Path(run["output"]),
        device=run["device"],
        metrics_port=answer["config"]["metrics"].get("port"),
    )


def says_address(config: Path) -> bool:
    """Whether the file has an address of its own for the exporters; what is wrong with it is the trainer's to say."""
    try:
        metrics = tomllib.loads(config.read_text(encoding="utf-8")).get("metrics", {})
    except (OSError, ValueError):
        return True
    return not isinstance(metrics, dict) or "address" in metrics
