"""Where a run begins: at its newest checkpoint, grown from another run, or at nothing; and its folder."""

import sys
from pathlib import Path

from data_pipeline.loader import Loader
from trainer.agreement import first_rank_decides
from trainer.checkpoint import Position, Trained, complete_checkpoints, load_newest
from trainer.complaint import complain
from trainer.config import Config
from trainer.errors import ExitCode
from trainer.growth import Growth
from trainer.run_folder import claim_run_folder
from trainer.run_identities import RunIdentities
from trainer.stopping import StopRequest
from trainer.world import World


def growth_of(config: Config, world: World) -> Growth | None:
    """The run that this one grows from, unless it has a checkpoint of its own by now."""
    if config.growth is None or first_rank_decides(world, lambda: bool(complete_checkpoints(config.run.output))):
        return None
    return Growth.open(config, world)


def claim(config: Config, identities: RunIdentities) -> Path:
    """The run's folder, made, with its configuration and the names of its identities."""
    folder = claim_run_folder(config)
    identities.keep()
    return folder


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


def stopped_early(stop: StopRequest) -> ExitCode:
    """All ranks have agreed on it: nothing is left to stop."""
    stop.satisfied()
    return complain(
        "stopped on request before the first step, nothing is lost; run the same command again", ExitCode.STOPPED
    )


def say_first(world: World, text: str) -> None:
    """A line on the terminal, by rank 0 alone."""
    if world.is_first:
        print(text, file=sys.stderr, flush=True)
