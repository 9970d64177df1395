"""What a rank of a run serves to Prometheus: from the moment that it is built, and more once it has a position."""

import time
from contextlib import ExitStack
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from trainer.agreement import first_rank_decides
from trainer.checkpoint import Position, Trained
from trainer.config import Config
from trainer.engine import Engine
from trainer.loop import Plan
from trainer.metrics import Health, LiveMetrics, TrainingMetrics, exporter
from trainer.metrics.head_speed import bare_flops
from trainer.metrics.recent import RecentSteps
from trainer.pulse import Pulse
from trainer.run_data import Data
from trainer.scrape_targets import gather_addresses, scraped_host, write_targets
from trainer.world import World


class RunMetrics:
    """Served until ``stack`` is closed. recent: the steps just taken; registry, training: all metrics and those of
    steps.
    """

    def __init__(self, stack: ExitStack, config: Config, world: World, pulse: Pulse) -> None:
        self._config, self._world = config, world
        self.registry = CollectorRegistry()
        self.training = TrainingMetrics(self.registry)
        self.recent = RecentSteps(time.monotonic)
        self._health = Health(
            pulse,
            self.recent,
            factor=config.metrics.unhealthy_after,
            pause_seconds=config.failure.stall_seconds,
        )
        self._port = stack.enter_context(
            exporter(
                self.registry,
                address=config.metrics.address,
                port=config.metrics.port,
                local_rank=world.local_rank,
                labels={"job": config.metrics.job or config.run.output.name, "rank": str(world.rank)},
                health=self._health.judge,
                port_in_use=config.metrics.port_in_use,
                local_world_size=world.local_world_size,
            )
        )

    def begin(
        self, trained: Trained, engine: Engine, data: Data, plan: Plan, position: Position, *, starts: int
    ) -> dict[str, str]:
        """Tell of the run from ``position`` on; starts: so many so far, with this one. Returns what is said of it."""
        config, metrics = self._config, self.training
        facts = {
            "backbone": config.backbone.name,
            "world_size": str(self._world.world_size),
            "num_classes": str(data.num_identities),
            "num_images": str(len(data.loader.reader)),
            "device": str(self._world.device),
            "engine": config.train.engine,
            "loss": config.head.loss,
            "version": version("pfc"),
        }
        metrics.describe_run(facts)
        metrics.target_steps.set(plan.total_steps)
        metrics.checkpoint_interval.set(config.checkpoint.every_steps)
        metrics.restarts.set(starts - 1)
        self.recent.last_step = position.step
        if config.metrics.port is not None:
            rows = len(trained.head.class_shard)
            LiveMetrics(
                recent=self.recent,
                health=self._health,
                head=trained.head,
                center_optimizer=trained.center_optimizer,
                loader=data.loader,
                engine=engine,
                total_steps=plan.total_steps,
                bare_flops=bare_flops(rows, trained.head.embedding_dim, data.loader.global_batch, self._world.device),
                registry=self.registry,
            )
        return facts

    def list_targets(self, stack: ExitStack, run_name: str) -> None:
        """Tell Prometheus where all ranks listen, until the run ends as it should; where that is asked for."""
        metrics, world = self._config.metrics, self._world
        path, labels = metrics.targets_file, {"job": metrics.job or run_name}
        if path is None or self._port is None:
            return
        addresses = gather_addresses(world, scraped_host(metrics.address), self._port)
        first_rank_decides(world, lambda: str(stack.enter_context(write_targets(path, addresses, labels))))
