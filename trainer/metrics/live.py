"""Metrics that are read off the running objects when somebody asks: between two scrapes they cost nothing."""

import math
import resource
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from data_pipeline import Loader
from partial_fc import CenterSGD, PartialFC, memory_use
from trainer.available_memory import available_bytes
from trainer.engine import Engine
from trainer.metrics.head_speed import product_flop
from trainer.metrics.health import Health
from trainer.metrics.recent import RecentSteps

_STATM = Path("/proc/self/statm")


class LiveMetrics(Collector):
    """Of one rank. total_steps: of the run. bare_flops: FLOP/s of the bare product on this device, NaN if unknown."""

    def __init__(
        self,
        *,
        recent: RecentSteps,
        health: Health,
        head: PartialFC,
        center_optimizer: CenterSGD,
        loader: Loader,
        engine: Engine,
        total_steps: int,
        bare_flops: float,
        registry: CollectorRegistry,
    ) -> None:
        self._recent = recent
        self._health = health
        self._head = head
        self._center_optimizer = center_optimizer
        self._loader = loader
        self._engine = engine
        self._total_steps = total_steps
        self._bare_flops = bare_flops
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the run before it runs."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """As of now."""
        yield from self._speed()
        yield _labelled(
            "pfc_memory_bytes", "Memory of this rank, by what it is for; of the whole machine: host_available.",
            "kind", self._memory(), GaugeMetricFamily,
        )  # fmt: skip
        uses = [use for use in (self._head.collectives.use, self._engine.collectives) if use is not None]
        yield _labelled(
            "pfc_collective_bytes", "Payload that this rank handed to collectives of the head, and for its gradients.",
            "operation", {key: value for use in uses for key, value in use.nbytes.items()}, CounterMetricFamily,
        )  # fmt: skip
        yield _labelled(
            "pfc_collective_seconds",
            "Time of these, waits for other ranks included; gradients are on their way beside the backward pass.",
            "operation", {key: value for use in uses for key, value in use.seconds.items()}, CounterMetricFamily,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "pfc_unseen_classes", "Classes of this rank's shard that had no sample yet.", self._head.seen.unseen
        )
        yield GaugeMetricFamily(
            "pfc_data_queue_batches", "Batches read ahead of training, by now or being decoded.", self._loader.ahead
        )
        yield GaugeMetricFamily(
            "pfc_data_queue_capacity_batches", "Batches that are read ahead at most.", self._loader.most_ahead
        )
        yield GaugeMetricFamily(
            "pfc_healthy", "1: /healthz says ready; 0: it does not.", float(self._health.judge().is_ready)
        )

    def _speed(self) -> Iterable[Metric]:
        recent, head = self._recent, self._head
        yield GaugeMetricFamily(
            "pfc_images_per_second", "Images this rank trains on, over its last steps.", recent.images_per_second
        )
        yield GaugeMetricFamily(
            "pfc_data_wait_ratio", "Share of the last steps' time spent waiting for data.", recent.data_wait_ratio
        )
        left = self._total_steps - recent.last_step
        eta = left * recent.pace_seconds if left else 0.0
        yield GaugeMetricFamily("pfc_eta_seconds", "Until the last step, at the pace of the last ones.", eta)
        stats, seconds = head.stats, recent.head_seconds
        flops = math.nan
        if stats is not None and seconds > 0.0:
            flops = product_flop(len(head.class_shard), head.embedding_dim, stats.samples) / seconds
        yield GaugeMetricFamily(
            "pfc_head_flops_per_second",
            "Of the product of all centers with the batch, that the head's result stands for, over the head's time.",
            flops,
        )
        yield GaugeMetricFamily(
            "pfc_head_bare_product_ratio",
            "The head's time, forward and gradients, over that of the bare float32 product of all centers.",
            self._bare_flops / flops if flops else math.nan,
        )

    def _memory(self) -> dict[str, float]:
        memory: dict[str, float] = dict(memory_use(self._head, self._center_optimizer))
        try:
            memory["host"] = float(_STATM.read_text().split()[1]) * resource.getpagesize()
        except (OSError, ValueError, IndexError):
            memory["host"] = math.nan
        available = available_bytes()
        memory["host_available"] = math.nan if available is None else available
        device = self._head.device
        if device.type == "cuda":
            memory["device"] = torch.cuda.memory_allocated(device)
            memory["device_peak"] = torch.cuda.max_memory_allocated(device)
        return memory


def _labelled(
    name: str, text: str, label: str, values: Mapping[str, float],
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
) -> Metric:  # fmt: skip
    family = kind(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
