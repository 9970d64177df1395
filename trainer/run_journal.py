"""The run's journal, and the line on the terminal that a start begins with."""

from pathlib import Path

from trainer.checkpoint import Position
from trainer.config import Config
from trainer.journal import Journal, forget_after
from trainer.loop import Plan
from trainer.run_data import Data
from trainer.world import World

JOURNAL = "metrics.jsonl"


def open_journal(run_folder: Path, world: World, position: Position, data: Data) -> Journal:
    """Without lines of steps that will be taken again."""
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


def opening_line(config: Config, data: Data, plan: Plan, world: World, position: Position) -> str:
    """What starts, or goes on, and where its files are."""
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
