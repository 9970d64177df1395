"""What a rank tells Prometheus, and how it is asked."""

from trainer.metrics.exporter import exporter
from trainer.metrics.health import Health
from trainer.metrics.live import LiveMetrics
from trainer.metrics.training_metrics import TrainingMetrics

__all__ = ["Health", "LiveMetrics", "TrainingMetrics", "exporter"]
