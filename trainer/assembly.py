"""The training loop and what it tells of its steps, put together: for a run, and for a benchmark of one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry

from trainer.batch_source import BatchSource
from trainer.checkpoint import Position, Trained
from trainer.config import Config
from trainer.engine import Engine
from trainer.loop import Plan, TrainingLoop
from trainer.metrics.recent import RecentSteps
from trainer.metrics_so_far import JOURNAL, TOTALS, RunTotals
from trainer.own_time import OwnTime
from trainer.phases import PhaseClock
from trainer.pulse import Pulse
from trainer.reporting import Reporting
from trainer.run_checkpoints import RunCheckpoints
from trainer.run_verification import RunVerification
from trainer.skipped_images import SkippedImages
from trainer.step import TrainStep
from trainer.step_account import StepAccount
from trainer.stopping import StopRequest
from trainer.stragglers import Stragglers
from trainer.world import World

Account = TypeVar("Account", bound=StepAccount)


def step_clock(pulse: Pulse, own_time: OwnTime) -> PhaseClock:
    """Times the phases of a step, and lets the watchdog and the comparison of ranks know of each."""

    def entered(part: str) -> None:
        pulse.enter_part(part)
        own_time.entered(part)

    return PhaseClock(time.perf_counter, entered)


def step_account(
    kind: type[Account],
    *,
    config: Config,
    world: World,
    plan: Plan,
    loader: BatchSource,
    trained: Trained,
    reporting: Reporting,
    registry: CollectorRegistry,
    own_time: OwnTime,
    recent: RecentSteps,
    name_of: Callable[[int], str],
    position: Position,
) -> Account:
    """Goes on counting where ``position`` left off.

    kind: StepAccount, or one that does more. registry: the one of ``reporting.metrics``. name_of: a rank.
    """
    totals = RunTotals.from_state(position.metrics.get(TOTALS, {}))
    reporting.journal.load_state(position.metrics.get(JOURNAL, {}))
    metrics, log = reporting.metrics, reporting.log
    return kind(
        reporting,
        log_every=config.log.every_steps,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        totals=totals,
        passed=trained.passed,
        skipped_images=SkippedImages(loader, metrics.skipped_records, log, before=totals.skipped_records),
        own_time=own_time,
        stragglers=Stragglers(
            world,
            limit=config.failure.straggler_ratio,
            registry=registry,
            log=log,
            say=reporting.progress.say,
            name=name_of,
        ),
        recent=recent,
    )


def training_loop(
    *,
    config: Config,
    world: World,
    plan: Plan,
    run_folder: Path,
    loader: BatchSource,
    trained: Trained,
    engine: Engine,
    clock: PhaseClock,
    verification: RunVerification,
    reporting: Reporting,
    account: StepAccount,
    pulse: Pulse,
    stop: StopRequest,
    position: Position,
) -> TrainingLoop:
    """Ready to run from ``position``; its checkpoints go to ``run_folder``, the same on all ranks."""
    return TrainingLoop(
        config=config,
        world=world,
        plan=plan,
        loader=loader,
        trained=trained,
        engine=engine,
        train_step=TrainStep(
            engine,
            trained.backbone,
            trained.head,
            trained.center_optimizer,
            world=world,
            clock=clock,
            micro_batches=config.train.micro_batches,
            center_lr_share=config.optimizer.center_lr_share,
        ),
        clock=clock,
        verification=verification,
        checkpoints=RunCheckpoints(
            config=config,
            world=world,
            run_folder=run_folder,
            trained=trained,
            reporting=reporting,
            pair_names=verification.names,
            position=position,
        ),
        reporting=reporting,
        account=account,
        pulse=pulse,
        stop=stop,
        position=position,
    )
