"""``--set table.key=value``, as every command has it that reads a run configuration."""

import argparse


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Values end up in ``overrides``, in their order, for :func:`trainer.config.load_config`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="table.key=value",
        help="override one value of the configuration (TOML syntax; may be repeated)",
    )
