"""A whole training run, assembled from its configuration."""

import os
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry

from data_pipeline.loader import Loader
from trainer.agreement import any_rank, first_rank_decides
from trainer.assembly import step_account, step_clock, training_loop
from trainer.building import build_trained
from trainer.checkpoint import Position, Trained, complete_checkpoints, load_newest, save_checkpoint
from trainer.complaint import complain
from trainer.config import Config, MetricsConfig
from trainer.cores import share_cores
from trainer.errors import ConfigError, ExitCode
from trainer.growth import Grown, Growth, GrowthStoppedError
from trainer.journal import Journal, forget_after
from trainer.logs import rank_log
from trainer.loop import Plan
from trainer.memory import give_back_freed_memory, keep_freed_memory
from trainer.metrics import Health, LiveMetrics, TrainingMetrics, exporter
from trainer.metrics.head_speed import bare_flops
from trainer.metrics.recent import RecentSteps
from trainer.own_time import OwnTime
from trainer.progress import Progress
from trainer.pulse import BUILDING, LOADING, OPENING, Pulse
from trainer.reporting import Reporting
from trainer.run_data import Data, open_data
from trainer.run_folder import check_run_folder, claim_run_folder
from trainer.run_identities import RunIdentities
from trainer.run_starts import note_start
from trainer.run_verification import RunVerification
from trainer.schedule import learning_rate_schedule
from trainer.scrape_targets import gather_addresses, scraped_host, write_targets
from trainer.step_account import StepAccount
from trainer.stopping import StopRequest, stop_on_signals
from trainer.watched_world import watched_world
from trainer.world import World, threads_are_told
from trainer.writers.packages import require_packages
from trainer.writers.run_writers import open_writers

JOURNAL = "metrics.jsonl"


def train(config: Config) -> ExitCode:
    """Train as configured, from the newest checkpoint of the run's folder if there is one.

    Raises ConfigError or DataError before anything is written when the input cannot be used.
    """
    require_packages(config.log)
    keep_freed_memory()
    pulse = Pulse()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        world, watchdog = stack.enter_context(
            watched_world(
                config.run.device,
                expected_size=config.run.world_size,
                timeout_seconds=config.run.timeout_seconds,
                limits=config.failure,
                pulse=pulse,
                stop=stop,
                group_alone=config.train.engine == "deepspeed",
            )
        )
        if any_rank(world, stop.asked):
            return _stopped_early(stop)
        pulse.enter(OPENING)
        share_cores(world, told=threads_are_told())
        data = open_data(config, world)
        identities = RunIdentities(data.loader.reader, data.num_identities, config.run.output)
        names_sha256 = first_rank_decides(world, lambda: identities.settle(config.data.identities_sha256))
        resolved = {"num_identities": data.num_identities, "identities_sha256": names_sha256}
        config = config.model_copy(update={"data": config.data.model_copy(update=resolved)})
        plan = make_plan(config, data.loader)
        verification = RunVerification(config, world)
        first_rank_decides(world, lambda: check_run_folder(config))
        growth = _growth(config, world)
        pulse.enter(BUILDING)
        trained, engine = build_trained(
            config, data.num_identities, world, check=None if growth is None else growth.check
        )
        # However this ends, the engine does before the ranks part.
        stack.enter_context(engine)
        registry = CollectorRegistry()
        metrics = TrainingMetrics(registry)
        recent = RecentSteps(time.monotonic)
        health = Health(
            pulse,
            recent,
            factor=config.metrics.unhealthy_after,
            pause_seconds=config.failure.stall_seconds,
        )
        port = stack.enter_context(
            exporter(
                registry,
                address=config.metrics.address,
                port=config.metrics.port,
                local_rank=world.local_rank,
                labels={"job": config.metrics.job or config.run.output.name, "rank": str(world.rank)},
                health=health.judge,
                port_in_use=config.metrics.port_in_use,
                local_world_size=world.local_world_size,
            )
        )
        if any_rank(world, stop.asked):
            return _stopped_early(stop)
        pulse.enter(LOADING)
        grown: Grown | None = None
        if growth is not None:
            try:
                grown = growth.carry_out(
                    trained,
                    data.loader.reader,
                    network=engine.to_evaluate,
                    names=lambda: identities.names,
                    stop=stop,
                    say=lambda text: _say_first(world, text),
                )
            except GrowthStoppedError as reason:
                stop.satisfied()
                _say_first(world, str(reason))
                return ExitCode.STOPPED
        run_folder = Path(first_rank_decides(world, lambda: str(_claim(config, identities))))
        log = stack.enter_context(rank_log(run_folder, world.rank))
        if grown is not None:
            # From here on this is a run like any other: what resumes now and what would resume later is the same.
            beginning = Position(0, 0, data.loader.state_dict())
            save_checkpoint(run_folder, trained, beginning, config=config, world=world, keep=config.checkpoint.keep)
            grown.log(log)
        position, damages = resume(run_folder, trained, data.loader, world, seed=config.run.seed)
        give_back_freed_memory()
        if any_rank(world, stop.asked):
            return _stopped_early(stop)
        facts = {
            "backbone": config.backbone.name,
            "world_size": str(world.world_size),
            "num_classes": str(data.num_identities),
            "num_images": str(len(data.loader.reader)),
            "device": str(world.device),
            "engine": config.train.engine,
            "loss": config.head.loss,
            "version": version("pfc"),
        }
        metrics.describe_run(facts)
        metrics.target_steps.set(plan.total_steps)
        metrics.checkpoint_interval.set(config.checkpoint.every_steps)
        restarts = first_rank_decides(world, lambda: note_start(run_folder, position.step, world.world_size)) - 1
        metrics.restarts.set(restarts)
        recent.last_step = position.step
        if config.metrics.port is not None:
            LiveMetrics(
                recent=recent,
                health=health,
                head=trained.head,
                center_optimizer=trained.center_optimizer,
                loader=data.loader,
                engine=engine,
                total_steps=plan.total_steps,
                bare_flops=bare_flops(
                    len(trained.head.class_shard), trained.head.embedding_dim, data.loader.global_batch, world.device
                ),
                registry=registry,
            )
        if config.metrics.targets_file is not None and port is not None:
            _list_targets(stack, config.metrics, run_folder.name, port, world)
        for damage in damages:
            log.warning("damaged checkpoint", reason=damage)
        log.info(
            "started", step=position.step, total_steps=plan.total_steps, pid=os.getpid(),
            start_seconds=pulse.start_seconds(), **facts,
        )  # fmt: skip
        own_time = OwnTime(trained.backbone, world.device, time.perf_counter)
        clock = step_clock(pulse, own_time)
        with Progress(world, total_steps=plan.total_steps, done_steps=position.step, stream=sys.stderr) as progress:
            for damage in damages:
                progress.say(f"warning: {damage}: this run goes on from the one before")
            for line in grown.lines(config.growth) if grown is not None and config.growth is not None else ():
                progress.say(line)
            progress.say(_opening(config, data, plan, world, position))
            journal = _journal(run_folder, world, position, data)
            writers = stack.enter_context(open_writers(config, run_folder, world, position, progress, log))
            reporting = Reporting(journal, metrics, progress, log, writers)
            account = step_account(
                StepAccount,
                config=config,
                world=world,
                plan=plan,
                loader=data.loader,
                trained=trained,
                reporting=reporting,
                registry=registry,
                own_time=own_time,
                recent=recent,
                name_of=watchdog.name_of,
                position=position,
            )
            loop = training_loop(
                config=config,
                world=world,
                plan=plan,
                run_folder=run_folder,
                loader=data.loader,
                trained=trained,
                engine=engine,
                clock=clock,
                verification=verification,
                reporting=reporting,
                account=account,
                pulse=pulse,
                stop=stop,
                position=position,
            )
            try:
                code = loop.run()
            except BaseException:
                log.exception("failed")
                raise
            stop.satisfied()
            return code


def _list_targets(stack: ExitStack, metrics: MetricsConfig, run_name: str, port: int, world: World) -> None:
    """Tell Prometheus where all ranks listen, until the run ends as it should."""
    addresses = gather_addresses(world, scraped_host(metrics.address), port)
    path, labels = metrics.targets_file, {"job": metrics.job or run_name}
    assert path is not None, "asked for"
    first_rank_decides(world, lambda: str(stack.enter_context(write_targets(path, addresses, labels))))


def _stopped_early(stop: StopRequest) -> ExitCode:
    """All ranks have agreed on it: nothing is left to stop."""
    stop.satisfied()
    return complain(
        "stopped on request before the first step, nothing is lost; run the same command again", ExitCode.STOPPED
    )


def _growth(config: Config, world: World) -> Growth | None:
    """The run that this one grows from, unless it has a checkpoint of its own by now."""
    if config.growth is None or first_rank_decides(world, lambda: bool(complete_checkpoints(config.run.output))):
        return None
    return Growth.open(config, world)


def _claim(config: Config, identities: RunIdentities) -> Path:
    folder = claim_run_folder(config)
    identities.keep()
    return folder


def _say_first(world: World, text: str) -> None:
    if world.is_first:
        print(text, file=sys.stderr, flush=True)


def make_plan(config: Config, loader: Loader) -> Plan:
    """Length of the run and its learning rate. Raises ConfigError for a warm-up that does not fit."""
    total_steps = config.train.total_steps(len(loader))
    try:
        schedule = learning_rate_schedule(
            config.schedule, base=config.optimizer.lr, total_steps=total_steps, steps_per_epoch=len(loader)
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Plan(total_steps, len(loader), schedule)


def resume(
    run_folder: Path, trained: Trained, loader: Loader, world: World, *, seed: int
) -> tuple[Position, list[str]]:
    """Load the newest whole checkpoint into ``trained`` and ``loader``; the beginning when there is none.

    Also returns what was wrong with newer ones.
    """
    position, damages = load_newest(run_folder, trained, world=world, seed=seed)
    if position is None:
        return Position(0, 0, loader.state_dict()), damages
    loader.load_state_dict(position.loader)
    return position, damages


def _journal(run_folder: Path, world: World, position: Position, data: Data) -> Journal:
    path = run_folder / JOURNAL
    if world.is_first:
        forget_after(path, position.step)
    constants = {
        "world_size": world.world_size,
        "global_batch": data.loader.global_batch,
        "num_images": len(data.loader.reader),
        "num_identities": data.num_identities,
    }
    # Every rank keeps averages for its own log; only rank 0's file is the run's journal.
    return Journal(path if world.is_first else None, constants=constants)


def _opening(config: Config, data: Data, plan: Plan, world: World, position: Position) -> str:
    if position.step >= plan.total_steps:
        return f"this run has taken all its {plan.total_steps} steps, nothing is left to train: {config.run.output}"
    start = f"continuing at step {position.step}" if position.step else "starting"
    return (
        f"{start}: {len(data.loader.reader):,} images of {data.num_identities:,} identities, "
        f"{config.backbone.name} at {config.data.image_size}x{config.data.image_size}, "
        f"{world.world_size} {'rank' if world.world_size == 1 else 'ranks'} on {world.device.type}, "
        f"global batch {data.loader.global_batch}, {plan.total_steps} steps "
        f"of {plan.steps_per_epoch} an epoch -> {config.run.output}"
    )
