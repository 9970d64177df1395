"""Where the ranks' metrics are: said on the command line, in a run's configuration, in a file_sd file."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trainer.config import load_config
from trainer.errors import ConfigError
from trainer.run_folder import RESOLVED

TARGETS_LIMIT_BYTES = 4 << 20
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
HOST_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


class Endpoint(NamedTuple):
    """One rank's exporter."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint | None:
    """``HOST:PORT`` or ``[IPv6]:PORT``; None where it is neither."""
    found = HOST_PORT.fullmatch(text)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        return None
    return Endpoint(found["six"] or found["host"], int(found["port"]))


class Machine(NamedTuple):
    """Whose ranks listen on ports from ``first`` on. job: the name of theirs where it is known; another run may have
    been there first.
    """

    first: Endpoint
    job: str | None = None


@dataclass(frozen=True)
class Sources:
    """targets: a file_sd file, read again at every refresh as Prometheus does."""

    machines: tuple[Machine, ...]
    targets: Path | None = None


def find_sources(places: list[str], targets: Path | None) -> Sources:
    """From the arguments of the command: RUN.toml, run folders and HOST:PORT. Raises ConfigError."""
    if not places and targets is None:
        raise ConfigError("say what to watch: RUN.toml, a run folder, HOST:PORT, or --targets FILE")
    if targets is not None:
        read_targets(targets)
    return Sources(tuple(dict.fromkeys(_machine(place) for place in places)), targets)


def _machine(place: str) -> Machine:
    path = Path(place)
    if not path.exists() and (endpoint := parse_endpoint(place)) is not None:
        return Machine(endpoint)
    if path.is_dir():
        path = path / RESOLVED
    elif not path.exists():
        raise ConfigError(f"{place}: neither a run's configuration nor HOST:PORT; such as run.toml or node-a:9500")
    config = load_config(path)
    metrics = config.metrics
    if metrics.port is None:
        raise ConfigError(f"{path}: metrics.port is not set, so its ranks serve no metrics: set [metrics] port = 9500")
    job = metrics.job or config.run.output.name
    return Machine(Endpoint(ANY_ADDRESS.get(metrics.address, metrics.address), metrics.port), job)


def read_targets(path: Path) -> tuple[Endpoint, ...]:
    """The targets of a Prometheus file_sd file: ``[{"targets": ["host:port", ...], "labels": {...}}, ...]``.

    Raises ConfigError.
    """
    try:
        with path.open("rb") as file:
            content = file.read(TARGETS_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--targets {path}: cannot be read ({error.strerror})") from None
    if len(content) > TARGETS_LIMIT_BYTES:
        raise ConfigError(f"--targets {path}: larger than {TARGETS_LIMIT_BYTES >> 20} MiB, which no file_sd file is")
    form = 'it must be [{"targets": ["host:port", ...]}, ...]'
    try:
        groups = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--targets {path}: not JSON ({error}); {form}") from None
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and isinstance(group.get("targets"), list) for group in groups
    ):
        raise ConfigError(f"--targets {path}: no list of target groups; {form}")
    found: dict[Endpoint, None] = {}
    for target in (target for group in groups for target in group["targets"]):
        endpoint = parse_endpoint(target) if isinstance(target, str) else None
        if endpoint is None:
            raise ConfigError(f"--targets {path}: {str(target)[:60]!r} is no host:port; {form}")
        found[endpoint] = None
    return tuple(found)
