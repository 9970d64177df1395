"""A real Prometheus server for the length of a block, and its query interface."""

import json
import random
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from commands import running

Value = TypeVar("Value")

CONFIGURATION = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: pfc
    static_configs:
      - targets: {targets}
"""


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive ports of 127.0.0.1 that are free.

    They are below the range from which the kernel serves connections without a port of their own, so that none
    is taken by chance before its user opens it.
    """
    lowest_temporary = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        first = random.randrange(10_000, min(lowest_temporary, 65_000) - count)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError(f"no {count} consecutive free ports below {lowest_temporary}")


def wait_for(value: Callable[[], Value | None], what: str, *, deadline_seconds: float = 60.0) -> Value:
    """The first value that is there (not None, not empty, not False), asked for until the deadline."""
    end = time.monotonic() + deadline_seconds
    while not (found := value()):
        assert time.monotonic() < end, f"{what}: not within {deadline_seconds} s"
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class Series:
    """One series of an answer and its value at the time asked for."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A server that is up."""

    address: str

    def query(self, expression: str) -> list[Series]:
        """The instant vector of a PromQL expression, now."""
        answer = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert answer["status"] == "success", answer
        return [Series(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def by_instance(self, expression: str) -> dict[str, float]:
        """The same where each target has one series: instance -> value."""
        found = self.query(expression)
        values = {series.labels["instance"]: series.value for series in found}
        assert len(values) == len(found), f"{expression} has several series of one instance"
        return values

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            return json.loads(answer.read())


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=10):
            return True
    except urllib.error.HTTPError as starting:  # 503
        starting.close()
        return False
    except OSError:  # refused
        return False


@contextmanager
def prometheus(
    program: str, folder: Path, *, targets: Sequence[str], configuration_text: str | None = None
) -> Iterator[Prometheus]:
    """Scrape ``targets`` (host:port) every second; ``folder`` takes the configuration and the data.

    configuration_text: the whole configuration, instead of that for ``targets``.
    """
    configuration = folder / "prometheus.yml"
    configuration.write_text(configuration_text or CONFIGURATION.format(targets=json.dumps(list(targets))))
    with prometheus_with(program, configuration) as server:
        yield server


@contextmanager
def prometheus_with(program: str, configuration: Path) -> Iterator[Prometheus]:
    """A server with that configuration file; the data lie beside it."""
    folder, address = configuration.parent, f"127.0.0.1:{free_ports(1)}"
    command = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with running(command, cwd=folder) as process:

        def ready() -> bool:
            assert process.poll() is None, f"Prometheus ended: {process.communicate()[1]}"
            return _ready(address)

        wait_for(ready, "Prometheus is ready")
        yield Prometheus(address)
