"""``pfc data clean RUN_OR_CHECKPOINT --output DIR``: which labels a trained run does not believe."""

import argparse
from pathlib import Path
from typing import TypeAlias

from trainer.errors import ConfigError, ExitCode
from trainer.world import joined_world

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
TIMEOUT_SECONDS = 24 * 3600.0  # the first rank judges alone, for hours where there are a million identities

DESCRIPTION = """\
Embed the images that RUN was trained on and list identities that look merged (two people), split (one person twice)
or noisy (images of others), by thresholds taken from the run's own angles: DIR/report.html with pictures,
cleaning.json, and relabel.tsv for pfc data reshard --relabel-file. Under torchrun all ranks embed."""


def clean(args: argparse.Namespace) -> int:
    """Write a folder of suspicions."""
    if not args.strictness > 0 or args.batch_size < 1:
        raise ConfigError("--strictness and --batch-size: give numbers above 0; 1.5 and 64 are usual")
    from trainer.cleaning.cleaning import clean as write  # torch and matplotlib: the other commands do without

    with joined_world(
        args.device, expected_size=None, timeout_seconds=TIMEOUT_SECONDS, device_setting="--device"
    ) as world:
        line = write(
            args.run, args.output.absolute(), which=args.checkpoint, records=args.records, batch_size=args.batch_size,
            strictness=args.strictness, move=args.noisy == "move", world=world,
        )  # fmt: skip
    if line is not None:
        print(line)
    return ExitCode.DONE


def add_clean(commands: _Subparsers) -> None:
    """Add ``clean`` to the subcommands of ``pfc data``."""
    parser = commands.add_parser(
        "clean",
        help="find merged, split and noisy identities by a trained run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", type=Path, help="run folder or checkpoint folder")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="new folder of the findings")
    parser.add_argument("--checkpoint", metavar="WHICH", help="of a run folder: newest (default), best, or a step")
    parser.add_argument("--records", metavar="PATH", type=Path, help="the run's records, if they have moved")
    parser.add_argument(
        "--strictness", metavar="K", type=float, default=1.5,
        help="fences lie K interquartile ranges outside the quartiles (default: 1.5); larger finds less, errs less",
    )  # fmt: skip
    parser.add_argument(
        "--noisy", choices=["drop", "move"], default="drop",
        help="of noisy images in relabel.tsv: drop (default), or move to whom they look like where that is clear",
    )  # fmt: skip
    parser.add_argument("--batch-size", metavar="N", type=int, default=64, help="images per forward pass (default: 64)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.set_defaults(handler=clean)
