"""A whole training run, assembled from its configuration."""

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from trainer.agreement import any_rank, first_rank_decides
from trainer.assembly import step_account, step_clock, training_loop
from trainer.building import build_trained
from trainer.checkpoint import Position, save_checkpoint
from trainer.config import Config
from trainer.cores import share_cores
from trainer.errors import ExitCode
from trainer.growth import Grown, GrowthStoppedError
from trainer.logs import rank_log
from trainer.memory import give_back_freed_memory, keep_freed_memory
from trainer.own_time import OwnTime
from trainer.progress import Progress
from trainer.pulse import BUILDING, LOADING, OPENING, Pulse
from trainer.reporting import Reporting
from trainer.run_beginning import claim, growth_of, resume, say_first, stopped_early
from trainer.run_data import open_data
from trainer.run_folder import check_run_folder
from trainer.run_identities import RunIdentities
from trainer.run_journal import open_journal, opening_line
from trainer.run_metrics import RunMetrics
from trainer.run_plan import make_plan
from trainer.run_starts import note_start
from trainer.run_verification import RunVerification
from trainer.step_account import StepAccount
from trainer.stopping import stop_on_signals
from trainer.watched_world import watched_world
from trainer.world import threads_are_told
from trainer.writers.packages import require_packages
from trainer.writers.run_writers import open_writers


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
            return stopped_early(stop)
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
        growth = growth_of(config, world)
        pulse.enter(BUILDING)
        trained, engine = build_trained(
            config, data.num_identities, world, check=None if growth is None else growth.check
        )
        # However this ends, the engine does before the ranks part.
        stack.enter_context(engine)
        metrics = RunMetrics(stack, config, world, pulse)
        if any_rank(world, stop.asked):
            return stopped_early(stop)
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
                    say=lambda text: say_first(world, text),
                )
            except GrowthStoppedError as reason:
                stop.satisfied()
                say_first(world, str(reason))
                return ExitCode.STOPPED
        run_folder = Path(first_rank_decides(world, lambda: str(claim(config, identities))))
        log = stack.enter_context(rank_log(run_folder, world.rank))
        if grown is not None:
            # From here on this is a run like any other: what resumes now and what would resume later is the same.
            beginning = Position(0, 0, data.loader.state_dict())
            save_checkpoint(run_folder, trained, beginning, config=config, world=world, keep=config.checkpoint.keep)
            grown.log(log)
        position, damages = resume(run_folder, trained, data.loader, world, seed=config.run.seed)
        give_back_freed_memory()
        if any_rank(world, stop.asked):
            return stopped_early(stop)
        starts = first_rank_decides(world, lambda: note_start(run_folder, position.step, world.world_size))
        facts = metrics.begin(trained, engine, data, plan, position, starts=starts)
        metrics.list_targets(stack, run_folder.name)
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
            progress.say(opening_line(config, data, plan, world, position))
            journal = open_journal(run_folder, world, position, data)
            writers = stack.enter_context(open_writers(config, run_folder, world, position, progress, log))
            reporting = Reporting(journal, metrics.training, progress, log, writers)
            account = step_account(
                StepAccount,
                config=config,
                world=world,
                plan=plan,
                loader=data.loader,
                trained=trained,
                reporting=reporting,
                registry=metrics.registry,
                own_time=own_time,
                recent=metrics.recent,
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
