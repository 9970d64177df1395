"""Tell Prometheus where this run's exporters are: a target file for its file_sd, for as long as the run lasts.

A run that ends as it should (finished, or stopped on request) takes its file away, and its targets are forgotten. One
that fails or is killed leaves it: its targets are then listed and down, which is what the alert on lost runs sees
(``deploy/monitoring``), until the run is started again or somebody removes the file.
"""

import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.agreement import of_all_ranks
from trainer.errors import ConfigError
from trainer.world import World

# On every target of such a file: only where the run itself lists its targets does "listed, but down" mean "lost".
LISTED_BY = ("listed_by", "pfc")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ANY_ADDRESS = ("", "0.0.0.0", "::")


def scraped_host(address: str) -> str:
    """Host under which others reach an exporter that listens on ``address``: itself, or this machine's name for any."""
    return socket.gethostname() if address in _ANY_ADDRESS else address


def gather_addresses(world: World, host: str, port: int) -> list[str]:
    """``host:port`` of every rank's exporter in rank order, on every rank. ``host``, ``port``: this rank's own."""
    return of_all_ranks(world, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


@contextmanager
def write_targets(path: Path, addresses: Sequence[str], labels: Mapping[str, str]) -> Iterator[Path]:
    """List ``addresses`` (host:port, in rank order) in ``path`` within the block; for rank 0 alone. Yields ``path``.

    labels: of every target, such as ``{"job": "ms1mv2_r50"}``; each gets its ``rank`` besides. The file appears whole
    or not at all. It is removed when the block ends without an exception, unless another process has written it anew.

    Raises ConfigError where it cannot be written or Prometheus would not read it, ValueError for labels that cannot be.
    """
    if path.suffix != ".json":
        raise ConfigError(f"metrics.targets_file {path}: Prometheus reads it as JSON by its name: call it NAME.json")
    text = _target_groups(addresses, labels)
    try:
        write_file(path, text)
        own = _identity(path)
    except OSError as error:
        raise ConfigError(
            f"metrics.targets_file {path}: cannot be written ({error.strerror or error}): make its folder, writable "
            "for rank 0, or leave the key out"
        ) from None
    yield path
    if _identity(path) == own:
        path.unlink(missing_ok=True)


def _target_groups(addresses: Sequence[str], labels: Mapping[str, str]) -> str:
    """One group per rank, since labels belong to groups."""
    for name in labels:
        if not _LABEL.fullmatch(name) or name.startswith("__") or name in ("rank", LISTED_BY[0]):
            raise ValueError(f"label {name!r} cannot be set on targets: use letters, digits, _; not rank, listed_by")
    groups = [
        {"targets": [address], "labels": {**labels, "rank": str(rank), LISTED_BY[0]: LISTED_BY[1]}}
        for rank, address in enumerate(addresses)
    ]
    return json.dumps(groups, indent=2) + "\n"


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tells one file of a name from the next; None where there is none, or none can be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
