"""Metrics of a rank by their names in the catalogue, served as a rank serves them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest, start_http_server

PHASES = {"data": 0.1, "forward": 0.2, "head": 0.1, "backward": 0.4, "optimizer": 0.1, "other": 0.1}


class RankMetrics:
    """Some steps are taken with :meth:`step`; everything else is set by name."""

    def __init__(self, *, job: str = "faces", rank: int = 0, steps: int = 0, samples_per_step: int = 32) -> None:
        self.registry = CollectorRegistry()
        self._constant = {"job": job, "rank": str(rank)}
        self._samples_per_step = samples_per_step
        self._steps = self._labelled(Counter, "pfc_steps").labels(**self._constant)
        self._samples = self._labelled(Counter, "pfc_samples").labels(**self._constant)
        self._seconds = self._labelled(Histogram, "pfc_step_seconds").labels(**self._constant)
        self._phases = self._labelled(Histogram, "pfc_step_phase_seconds", "phase")
        self._modes = self._labelled(Counter, "pfc_head_steps", "mode")
        self._gauges: dict[str, Any] = {}
        info = self._labelled(Info, "pfc_run").labels(**self._constant)
        info.info({"backbone": "iresnet50", "world_size": "2", "num_classes": "1000", "device": "cpu"})
        self.set("pfc_target_steps", 1000)
        for _ in range(steps):
            self.step()

    def _labelled(self, kind: Any, name: str, *labels: str) -> Any:
        return kind(name, name, ["job", "rank", *labels], registry=self.registry)

    def set(self, name: str, value: float, **labels: str) -> None:
        if name not in self._gauges:
            self._gauges[name] = self._labelled(Gauge, name, *labels)
        self._gauges[name].labels(**self._constant, **labels).set(value)

    def step(self, seconds: float = 0.5, mode: str = "screened") -> None:
        self._steps.inc()
        self._samples.inc(self._samples_per_step)
        self._seconds.observe(seconds)
        self._modes.labels(**self._constant, mode=mode).inc()
        for phase, share in PHASES.items():
            self._phases.labels(**self._constant, phase=phase).observe(share * seconds)
        self.set("pfc_step", self._steps._value.get())

    def text(self) -> bytes:
        return generate_latest(self.registry)


@contextmanager
def served(metrics: Mapping[int, RankMetrics]) -> Iterator[None]:
    """Port -> metrics, on 127.0.0.1."""
    servers = [start_http_server(port, addr="127.0.0.1", registry=each.registry) for port, each in metrics.items()]
    try:
        yield
    finally:
        for server, thread in servers:
            server.shutdown()
            server.server_close()
            thread.join(timeout=10)
