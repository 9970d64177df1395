"""``pfc check RUN.toml``: whether a run could start on so many ranks, found out without starting it."""

import argparse
import json
from pathlib import Path
from typing import Any

from trainer.commands.overrides import add_overrides
from trainer.config import load_config
from trainer.errors import ConfigError, ExitCode

DESCRIPTION = """\
Check configuration, data, run folder and the checkpoint that the run would go on from, as pfc train does before its
first step, for a number of ranks, without a GPU. Nothing is written. Exit code 2 and one line for what is wrong."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc check`` to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="find out whether a run could start, without starting it",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="RUN.toml", help="run configuration")
    add_overrides(parser)
    parser.add_argument(
        "--world-size", type=int, metavar="W", help="ranks that will train (default: run.world_size, or 1)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, the resolved configuration with it")
    parser.add_argument(
        "--no-data",
        action="store_true",
        help="leave files alone (data, run folder, weights): this machine does not see those of the nodes",
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Check and print what the run would be."""
    from trainer.run_check import check_run  # torch and all that trains are for this command alone

    config = load_config(args.config, args.overrides)
    world_size = (config.run.world_size or 1) if args.world_size is None else args.world_size
    if world_size < 1:
        raise ConfigError(f"--world-size {world_size}: a run has at least one rank")
    checked = check_run(config, world_size=world_size, with_data=not args.no_data)
    facts: dict[str, Any] = {
        "world_size": world_size,
        "global_batch": checked.global_batch,
        "num_identities": checked.num_identities,
        "num_images": checked.num_images,
        "steps_per_epoch": checked.steps_per_epoch,
        "total_steps": checked.total_steps,
        "resumes_from": checked.resumes_from,
        "data_checked": not args.no_data,
    }
    if args.json:
        # The text is what to hand on: the configuration as it was given, overrides applied, paths absolute.
        facts |= {"config": checked.config.to_dict(), "toml": config.to_toml()}
        print(json.dumps(facts, indent=2))
    else:
        start = "from the beginning" if checked.resumes_from is None else f"from step {checked.resumes_from}"
        known = {key: value for key, value in facts.items() if value is not None and key not in ("resumes_from",)}
        for key, value in known.items():
            print(f"{key:16}{value:,}" if not isinstance(value, bool) else f"{key:16}{'yes' if value else 'no'}")
        if not args.no_data:
            print(f"{'starts':16}{start}")
        print(f"{'run.output':16}{checked.config.run.output}")
    return ExitCode.DONE
