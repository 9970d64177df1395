"""The same labels on every series of a registry, put on when somebody asks: a step pays nothing for them."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Labelled(Collector):
    """Collects from ``source`` and adds ``labels``; a label that a series has itself stays as it is."""

    def __init__(self, source: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self._source = source
        self._labels = dict(labels)

    def collect(self) -> Iterable[Metric]:
        """All metrics of the source, with the labels."""
        for metric in self._source.collect():
            labelled = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            labelled.samples = [sample._replace(labels=self._labels | sample.labels) for sample in metric.samples]
            yield labelled


def labelled_registry(source: CollectorRegistry, labels: Mapping[str, str]) -> CollectorRegistry:
    """A registry that serves ``source`` with ``labels``."""
    registry = CollectorRegistry()
    registry.register(Labelled(source, labels))
    return registry
