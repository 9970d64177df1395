"""A run as it is submitted to Kubernetes, with everything that can be asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.submit.job import Job, Resources, Toleration, Volume

CONFIG = """\
[run]
output = "/runs/faces"
[data]
records = "/data/train.rec"
[metrics]
port = 9500
address = "0.0.0.0"
"""

FULL = Job(
    name="faces",
    config=Path("run.toml"),
    config_text=CONFIG,
    output=Path("/runs/faces"),
    nodes=3,
    ranks_per_node=2,
    gpus=True,
    image="registry.example/pfc:1.0",
    queue="training",
    resources=Resources(cpus="8", memory="32Gi", shm="8Gi"),
    volumes=(Volume("face-data", "/data", read_only=True), Volume("runs", "/runs")),
    tolerations=(Toleration("nvidia.com/gpu"), Toleration("team", "faces", "NoSchedule")),
    node_selector={"gpu": "h100", "disk": "nvme"},
    environment={"PRICE": "5$ $(HOME)"},
    passed_through={"NCCL_DEBUG": "INFO"},
    secrets={"WANDB_API_KEY": "wandb/api-key"},
    grace_seconds=900,
    metrics_port=9500,
    deadline_seconds=86400,
)
BARE = Job(
    name="bare",
    config=Path("run.toml"),
    config_text='[run]\noutput = "/runs/bare"\n',
    output=Path("/runs/bare"),
    image="pfc",
    volumes=(Volume("runs", "/runs"),),
)


def full(**changes: Any) -> Job:
    return replace(FULL, **changes)


def bare(**changes: Any) -> Job:
    return replace(BARE, **changes)
