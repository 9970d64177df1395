"""Prometheus metrics that the training sets as it goes on; the registry is injected."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from data_pipeline.errors import REASONS
from partial_fc import QUANTILES, AngleSurvey, HeadStats
from trainer.checkpoint.errors import REASONS as CHECKPOINT_REASONS
from trainer.engine import Outcome
from trainer.evaluation import VerificationResult
from trainer.metrics_so_far import RunTotals

CHECKPOINT_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
STEP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class TrainingMetrics:
    """The metrics of one rank. Values of the loss and its angles are global; samples are this rank's own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.steps = Counter("pfc_steps", "Optimizer steps taken by this process.", registry=registry)
        self.samples = Counter("pfc_samples", "Images this rank trained on.", registry=registry)
        self.step = Gauge("pfc_step", "Number of the run's last finished step.", registry=registry)
        self.target_steps = Gauge("pfc_target_steps", "Steps of the whole run.", registry=registry)
        self.epoch = Gauge("pfc_epoch", "Epochs finished, with fraction.", registry=registry)
        self.loss = Gauge("pfc_loss", "Loss of the last step, mean over the global batch.", ["part"], registry=registry)
        self.angle = Gauge(
            "pfc_angle_radians", "Mean angle between embeddings and class centers.", ["pair"], registry=registry
        )
        self.angle_quantile = Gauge(
            "pfc_angle_quantile_radians",
            "Quantiles of the angles between embeddings and class centers, measured every few steps.",
            ["pair", "q"],  # "quantile" is for summaries
            registry=registry,
        )
        self.embedding_norm = Gauge(
            "pfc_embedding_norm", "Mean length of the embeddings, measured every few steps.", registry=registry
        )
        self.active_pairs = Gauge("pfc_active_pairs", "Active negatives of the last global batch.", registry=registry)
        self.cut = Gauge("pfc_gradient_cut", "Coefficient from which a negative is active.", registry=registry)
        self.gradient_error = Gauge(
            "pfc_gradient_error_ratio", "Estimated relative error of the batch's gradient.", registry=registry
        )
        self.dropped_mass = Gauge(
            "pfc_dropped_mass_ratio",
            "Estimated share of the negatives' coefficients that the cut leaves out.",
            registry=registry,
        )
        self.embedding_gradient_norm = Gauge(
            "pfc_embedding_gradient_norm",
            "Norm of the loss's gradient by the global batch's embeddings.",
            registry=registry,
        )
        self.gradient_norm = Gauge(
            "pfc_gradient_norm", "Norm of the backbone's gradient over all ranks, before clipping.", registry=registry
        )
        self.nonfinite_steps = Counter(
            "pfc_nonfinite_steps", "Steps passed over because loss or gradient was NaN or infinite.", registry=registry
        )
        self.overflow_steps = Counter(
            "pfc_overflow_steps", "Steps passed over because float16's loss scale was too large.", registry=registry
        )
        self.loss_scale = Gauge("pfc_loss_scale", "Scale of float16's gradient; 1 otherwise.", registry=registry)
        self.rollbacks = Counter("pfc_rollbacks", "Times this process went back to a checkpoint.", registry=registry)
        self.head_steps = Counter("pfc_head_steps", "Steps by the head's path.", ["mode"], registry=registry)
        self.collective_bytes = Counter(
            "pfc_head_collective_bytes", "Payload this rank's head handed to collectives.", registry=registry
        )
        self.learning_rate = Gauge("pfc_learning_rate", "Learning rate of the last step.", registry=registry)
        self.step_seconds = Histogram(
            "pfc_step_seconds", "Duration of a step.", buckets=STEP_BUCKETS, registry=registry
        )
        self.phase_seconds = Histogram(
            "pfc_step_phase_seconds", "Duration of a step's phases.", ["phase"], buckets=STEP_BUCKETS, registry=registry
        )
        self.skipped_records = Counter(
            "pfc_data_skipped_records",
            "Bad images that this rank replaced by others, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:  # 0 until it happens, so that an alert on its increase sees the first one
            self.skipped_records.labels(reason)
        self.accuracy = Gauge(
            "pfc_verification_accuracy_ratio", "10-fold verification accuracy.", ["pairs"], registry=registry
        )
        self.tar = Gauge(
            "pfc_verification_tar_ratio",
            "Share of same pairs that are accepted at a false accept rate.",
            ["pairs", "far"],
            registry=registry,
        )
        self.checkpoint_seconds = Histogram(
            "pfc_checkpoint_seconds",
            "From the request for a checkpoint until it is complete.",
            buckets=CHECKPOINT_BUCKETS,
            registry=registry,
        )
        self.checkpoint_stall_seconds = Histogram(
            "pfc_checkpoint_stall_seconds",
            "How long training waited for a checkpoint.",
            buckets=CHECKPOINT_BUCKETS,
            registry=registry,
        )
        self.checkpoint_bytes = Gauge(
            "pfc_checkpoint_bytes", "What this rank wrote of the newest complete checkpoint.", registry=registry
        )
        self.checkpoint_time = Gauge(
            "pfc_checkpoint_last_success_timestamp_seconds",
            "When the newest complete checkpoint was complete; 0 before the first one.",
            registry=registry,
        )
        self.checkpoint_failures = Counter(
            "pfc_checkpoint_failures",
            "Checkpoints that could not be written, by reason.",
            ["reason"],
            registry=registry,
        )
        for why in CHECKPOINT_REASONS:
            self.checkpoint_failures.labels(why)
        self.checkpoint_interval = Gauge(
            "pfc_checkpoint_interval_steps", "Steps between checkpoints; 0: none are due.", registry=registry
        )
        self.last_checkpoint_step = Gauge(
            "pfc_last_checkpoint_step", "Step of the newest complete checkpoint.", registry=registry
        )
        # Totals of the run go on after a restart from its checkpoint: gauges, see trainer.metrics_so_far.
        self.run_samples = Gauge("pfc_run_samples", "Images this rank's part of the run trained on.", registry=registry)
        self.run_step_seconds = Gauge("pfc_run_step_seconds", "Time the run has spent in steps.", registry=registry)
        self.run_head_steps = Gauge(
            "pfc_run_head_steps", "The run's steps by the head's path.", ["mode"], registry=registry
        )
        self.run_skipped_records = Gauge(
            "pfc_run_skipped_records",
            "Bad images that this rank's part of the run replaced, by reason.",
            ["reason"],
            registry=registry,
        )
        self.restarts = Gauge(
            "pfc_run_restarts", "How often the run was started again since it was begun.", registry=registry
        )
        self.run = Info("pfc_run", "What runs here.", registry=registry)

    def describe_run(self, facts: Mapping[str, str]) -> None:
        """Constant facts of the run as labels of ``pfc_run_info``."""
        self.run.info(dict(facts))

    def record_step(
        self,
        *,
        step: int,
        epoch: float,
        local_samples: int,
        stats: HeadStats,
        learning_rate: float,
        step_seconds: float,
        phase_seconds: Mapping[str, float],
        outcome: Outcome | None = None,
    ) -> None:
        """Take over one finished step. One that was passed over moves the counters of time and place alone."""
        self.step.set(step)
        self.epoch.set(epoch)
        self.learning_rate.set(learning_rate)
        self.step_seconds.observe(step_seconds)
        for phase, seconds in phase_seconds.items():
            self.phase_seconds.labels(phase).observe(seconds)
        if outcome is not None:
            self.loss_scale.set(outcome.loss_scale)
            if not outcome.applied:
                (self.overflow_steps if outcome.overflow else self.nonfinite_steps).inc()
                return
            self.gradient_norm.set(outcome.gradient_norm)
        self.steps.inc()
        self.samples.inc(local_samples)
        for part, value in (("total", stats.loss), ("intra", stats.loss_intra), ("inter", stats.loss_inter)):
            self.loss.labels(part).set(value)
        self.angle.labels("positive").set(stats.theta_positive)
        self.angle.labels("negative").set(stats.theta_negative)
        self.active_pairs.set(stats.active_pairs)
        self.cut.set(stats.cut)
        self.gradient_error.set(stats.error)
        self.dropped_mass.set(stats.dropped_mass)
        self.embedding_gradient_norm.set(stats.gradient_norm)
        self.head_steps.labels(stats.mode).inc()
        self.collective_bytes.inc(stats.bytes_moved)

    def record_angles(self, survey: AngleSurvey) -> None:
        """Take over how the angles of a batch are distributed."""
        for pair, values in (("positive", survey.positive), ("negative", survey.negative)):
            for quantile, value in zip(QUANTILES, values, strict=True):
                self.angle_quantile.labels(pair, quantile).set(value)
        self.embedding_norm.set(survey.embedding_norm)

    def record_verification(self, result: VerificationResult) -> None:
        """Take over the result of one pair set; rates that it is too small to measure stay absent."""
        self.accuracy.labels(result.name).set(result.accuracy_mean)
        for far, rate in result.tar_at_far.items():
            if rate is not None:
                self.tar.labels(result.name, far).set(rate)

    def record_totals(self, totals: RunTotals) -> None:
        """Take over what the run has counted so far."""
        self.run_samples.set(totals.samples)
        self.run_step_seconds.set(totals.seconds)
        for mode, count in totals.head_steps.items():
            self.run_head_steps.labels(mode).set(count)
        for reason, count in totals.skipped_records.items():
            self.run_skipped_records.labels(reason).set(count)

    def record_checkpoint(
        self, *, step: int, seconds: float, stall_seconds: float, nbytes: int, written: float
    ) -> None:
        """Take over a checkpoint that is complete since ``written``."""
        self.checkpoint_seconds.observe(seconds)
        self.checkpoint_stall_seconds.observe(stall_seconds)
        self.checkpoint_bytes.set(nbytes)
        self.checkpoint_time.set(written)
        self.last_checkpoint_step.set(step)
