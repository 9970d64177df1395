"""The training loop of ``pfc train`` on drawn records, measured against its parts."""

import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from trainer.agreement import first_rank_decides
from trainer.assembly import step_account, step_clock, training_loop
from trainer.bench.seconds import both_clocks
from trainer.bench.step_account import AccountAlone, TimedAccount
from trainer.bench.step_parts import PartsAlone
from trainer.bench.step_problem import StepEffort, StepResults, step_results
from trainer.bench.step_records import write_records
from trainer.bench.step_rounds import PREFETCH, MeasuredEnoughError, Rounds, batches_needed
from trainer.bench.summary import modes
from trainer.building import build_trained
from trainer.checkpoint import Position
from trainer.config import Config, config_from
from trainer.errors import ExitCode
from trainer.journal import Journal
from trainer.logs import rank_log
from trainer.loop import TrainingLoop
from trainer.metrics import TrainingMetrics
from trainer.metrics.recent import RecentSteps
from trainer.optimizers import backbone_optimizer
from trainer.own_time import OwnTime
from trainer.progress import Progress
from trainer.pulse import Pulse
from trainer.reporting import Reporting
from trainer.run_data import open_data
from trainer.run_plan import make_plan
from trainer.run_verification import RunVerification
from trainer.stopping import StopRequest
from trainer.world import World
from trainer.writers.run_writers import RunWriters

ENDLESS = 1_000_000  # steps planned: the learning rate stays what it is, and no last step is saved


def bench_step(
    effort: StepEffort,
    folder: Path,
    *,
    world: World,
    pulse: Pulse,
    stop: StopRequest,
    name_of: Callable[[int], str],
    after_round: Callable[[int], None],
) -> tuple[ExitCode, StepResults | None]:
    """One size; every rank calls it and gets the same figures, but for ``told``.

    STOPPED where it was asked to stop, with the figures of the rounds that were over, if any.
    folder: empty, seen by all ranks; the caller removes what is in it afterwards. pulse, name_of: the watchdog's.
    """
    config = _config(effort, folder, _drawn(effort, folder, world))
    data = open_data(config, world)
    plan = make_plan(config, data.loader)
    trained, engine = build_trained(config, data.num_identities, world)
    verification = RunVerification(config, world)
    position = Position(0, 0, data.loader.state_dict())
    with ExitStack() as stack:

        def reporting(registry: CollectorRegistry, place: Path) -> Reporting:
            first_rank_decides(world, lambda: place.mkdir(parents=True))
            terminal = stack.enter_context((place / f"terminal_{world.rank}").open("w"))
            progress = Progress(world, total_steps=plan.total_steps, done_steps=0, stream=terminal)
            return Reporting(
                Journal(
                    place / "metrics.jsonl" if world.is_first else None, constants={"world_size": world.world_size}
                ),
                TrainingMetrics(registry),
                stack.enter_context(progress),
                stack.enter_context(rank_log(place, world.rank)),
                RunWriters(progress.say),
            )

        def account(own_time: OwnTime, place: Path) -> tuple[TimedAccount, Reporting]:
            registry = CollectorRegistry()
            to = reporting(registry, place)
            made = step_account(
                TimedAccount,
                config=config,
                world=world,
                plan=plan,
                loader=data.loader,
                trained=trained,
                reporting=to,
                registry=registry,
                own_time=own_time,
                recent=RecentSteps(time.monotonic),
                name_of=name_of,
                position=position,
            )
            return made, to

        own_time, own_time_alone = (OwnTime(trained.backbone, world.device, time.perf_counter) for _ in range(2))
        in_loop, to = account(own_time, config.run.output)
        alone, _ = account(own_time_alone, folder / "alone")
        pulse_alone = Pulse()
        rounds = Rounds(
            data.loader,
            effort,
            world,
            parts=PartsAlone(
                trained, lambda network: backbone_optimizer(config.optimizer, network), world, both_clocks
            ),
            account=in_loop,
            alone=AccountAlone(alone, pulse_alone, step_clock(pulse_alone, own_time_alone), both_clocks),
            now=both_clocks,
            after_round=after_round,
        )
        loop = training_loop(
            config=config,
            world=world,
            plan=plan,
            run_folder=config.run.output,
            loader=rounds,
            trained=trained,
            engine=engine,
            clock=step_clock(pulse, own_time),
            verification=verification,
            reporting=to,
            account=in_loop,
            pulse=pulse,
            stop=stop,
            position=position,
        )
        try:
            code = _run(loop)
            results = None
            if rounds.rounds:
                results = step_results(
                    replace(effort, repetitions=len(rounds.rounds)),
                    rounds.rounds,
                    in_loop.mean,
                    world_size=world.world_size,
                    head_modes=modes(in_loop.modes) or "",
                )
            return code, results
        finally:
            del loop, rounds
            gc.collect()  # ends the loader's threads, so that they do not work beside the next size


def _run(loop: TrainingLoop) -> ExitCode:
    try:
        return loop.run()
    except MeasuredEnoughError:
        return ExitCode.DONE


def _drawn(effort: StepEffort, folder: Path, world: World) -> list[str]:
    """Records of one file, listed so often that no epoch ends while it is measured."""
    path = folder / "train.rec"
    images = first_rank_decides(
        world,
        lambda: write_records(path, num_identities=effort.num_classes, image_size=effort.image_size, seed=effort.seed),
    )
    times = -(-batches_needed(effort) * effort.batch * world.world_size // images)
    return [str(path)] * times


def _config(effort: StepEffort, folder: Path, records: list[str]) -> Config:
    """The trainer's defaults, but for the size; checkpoints have a benchmark of their own."""
    return config_from(
        {
            "run": {"output": str(folder / "run"), "seed": effort.seed, "device": "cpu"},
            "data": {
                "records": records,
                "num_identities": effort.num_classes,
                "image_size": effort.image_size,
                "batch_size": effort.batch,
                "threads": effort.decode_threads,
                "prefetch": PREFETCH,
            },
            "train": {"steps": ENDLESS},
            "backbone": {"name": effort.backbone, "embedding_dim": effort.embedding_dim},
            "checkpoint": {"every_steps": 0},
        },
        "pfc bench step",
    )
