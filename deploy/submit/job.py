"""One run as it is submitted, whatever the target: what to start, where, with what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Volume:
    """A folder of the host (or a claim's name, for Kubernetes) that containers see at ``target``."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Toleration:
    """Of a Kubernetes node's taint. value None: any (operator Exists). effect "": all."""

    key: str
    value: str | None = None
    effect: str = ""


@dataclass(frozen=True)
class Resources:
    """Of one node's part, None where nothing is asked for. cpus, memory: as Kubernetes has them ("8", "32Gi"); shm: of
    /dev/shm.
    """

    cpus: str | None = None
    memory: str | None = None
    shm: str | None = None


@dataclass(frozen=True)
class Job:
    """Everything that a target needs to start a run.

    name: lower-case letters, digits and "-", at most 40 characters, so that every target can carry it.
    config: the run's TOML on this machine; config_text: its content with ``overrides`` already applied and checked.
    nodes, ranks_per_node: how many; gpus: whether each rank wants one. image: of containers. queue: partition of Slurm,
    local queue of Kueue. environment: values to set; passed_through: names of this shell's variables (NCCL_*) with
    their values; secrets: variable -> "secret-name/key", a reference, never a value. grace_seconds: between SIGTERM and
    SIGKILL; a checkpoint must fit. metrics_port: of local rank 0, None: the run serves no metrics. deadline_seconds:
    cap on the whole run, None: none.
    """

    name: str
    config: Path
    config_text: str
    output: Path
    nodes: int = 1
    ranks_per_node: int = 1
    gpus: bool = False
    image: str | None = None
    queue: str | None = None
    resources: Resources = Resources()
    volumes: tuple[Volume, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    passed_through: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    grace_seconds: int = 600
    metrics_port: int | None = None
    deadline_seconds: int | None = None

    @property
    def world_size(self) -> int:
        """Ranks of the run."""
        return self.nodes * self.ranks_per_node
