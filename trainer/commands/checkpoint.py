"""``pfc checkpoint inspect|verify``: what a checkpoint holds, and whether it is what was written."""

import argparse
from collections import Counter
from pathlib import Path

from trainer.checkpoint import Description, complete_checkpoints, read_description
from trainer.checkpoint.description import NAME
from trainer.checkpoint.storage import DamagedCheckpointError, RawReader
from trainer.errors import ConfigError, ExitCode


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc checkpoint`` and its subcommands to the command line."""
    parser = subparsers.add_parser("checkpoint", help="look into the checkpoints of a run, or check every byte of them")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, handler, text in (
        ("inspect", inspect, "print what a checkpoint holds"),
        ("verify", verify, "read every byte and compare it with its checksum; exit code 1 if one is damaged"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", metavar="PATH", type=Path, help="a run folder or a checkpoint folder")
        command.set_defaults(handler=handler)


def inspect(args: argparse.Namespace) -> int:
    """Print the newest checkpoint's description."""
    folder = _folders(args.path)[-1]
    description = read_description(folder)
    lines = {
        "checkpoint": str(folder),
        "step": f"{description.step:,}",
        "samples": f"{description.samples:,}",
        "epoch": f"{description.loader.get('epoch', 0)}, {description.loader.get('samples', 0):,} samples into it",
        "written by": f"{description.world_size} {'rank' if description.world_size == 1 else 'ranks'}",
        "centers": f"{description.num_classes:,} x {description.embedding_dim}",
        "backbone": str(description.config["backbone"]["name"]),
        "loss": str(description.config["head"]["loss"]),
    } | {f"{name} MiB": f"{size / 2**20:,.1f}" for name, size in _sizes(description).items()}
    for name, value in lines.items():
        print(f"{name:22}{value}")
    return ExitCode.DONE


def verify(args: argparse.Namespace) -> int:
    """Check every checkpoint of a run, or one."""
    code = ExitCode.DONE
    for folder in _folders(args.path):
        try:
            checked = RawReader(folder, read_description(folder).tensors).verify()
            print(f"{folder}: whole, {checked / 2**20:,.1f} MiB")
        except DamagedCheckpointError as error:
            print(f"{folder}: damaged: {error}")
            code = ExitCode.FAILURE
    return code


def _folders(path: Path) -> list[Path]:
    if (path / NAME).exists():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{path}: no such run folder or checkpoint folder")
    found = complete_checkpoints(path)
    if not found:
        raise ConfigError(f"{path}: holds no complete checkpoint; train first: pfc train RUN.toml")
    return found


def _sizes(description: Description) -> dict[str, int]:
    """Bytes by kind of state."""
    sizes: Counter[str] = Counter()
    for name, entry in description.tensors.items():
        parts = name.split(".")
        kind = {"shared": parts[1] if len(parts) > 1 else "", "centers": "centers"}.get(parts[0], parts[-1])
        kind = {"momentum": "center_momentum", "optimizer": "backbone optimizer"}.get(kind, kind)
        sizes[kind] += sum(chunk["size"] for chunk in entry["chunks"])
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))
