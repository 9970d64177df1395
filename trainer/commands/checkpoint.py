"""``pfc checkpoint list|inspect|verify``: which checkpoints there are, what they hold, whether they are whole."""

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.checkpoint import DamagedCheckpointError, Description, complete_checkpoints, read_description
from trainer.checkpoint.draft import DAMAGED, DRAFT
from trainer.checkpoint.folders import BEST, FOLDER, NEWEST, best_checkpoint, find_checkpoint
from trainer.checkpoint.storage import RawReader
from trainer.complaint import complain
from trainer.errors import ConfigError, ExitCode

MIB = 1 << 20
Facts = dict[str, Any]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc checkpoint`` and its subcommands to the command line."""
    parser = subparsers.add_parser(
        "checkpoint", help="list the checkpoints of a run, look into them, or check every byte of them"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, handler, what, text in (
        ("list", list_all, "a run folder", "one line for each checkpoint of a run"),
        ("inspect", inspect, "a run folder or a checkpoint folder", "print what a checkpoint holds"),
        (
            "verify",
            verify,
            "a run folder or a checkpoint folder",
            "read every byte and compare it with its checksum; exit code 1 if one is damaged",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", metavar="PATH", type=Path, help=what)
        if handler is not list_all:
            which = "newest, best, or a step; default: " + ("newest" if handler is inspect else "all")
            command.add_argument("--checkpoint", metavar="WHICH", help=f"of a run folder: {which}")
        command.add_argument("--json", action="store_true", help="print JSON instead")
        command.set_defaults(handler=handler)


def list_all(args: argparse.Namespace) -> int:
    """Print the checkpoints of a run, oldest first, and what is no checkpoint (any more) beside them.

    Exit code 1 if one is damaged, as far as can be told without reading it all.
    """
    folders = _folders(args.path, None)
    best = best_checkpoint(args.path)
    found: list[Facts] = []
    for folder in folders:
        facts: Facts = {"checkpoint": folder.name, "damage": None}
        try:
            description = read_description(folder)
            RawReader(folder, description.tensors)  # files there and of the right length
            facts |= _summary(description)
        except ConfigError as error:
            facts["damage"] = str(error)
        marks = {NEWEST: folder == folders[-1], BEST: folder == best}
        found.append(facts | {"marks": [mark for mark, is_so in marks.items() if is_so]})
    others = {
        path.name: "being written, or left by a killed run" if path.name.endswith(DRAFT) else "found damaged, set aside"
        for path in sorted((args.path / FOLDER).glob("*"))
        if path.name.endswith(DRAFT) or path.name.startswith(DAMAGED)
    }
    if args.json:
        print(json.dumps({"checkpoints": found, "others": others}, indent=2))
    else:
        for facts in found:
            print(_line(facts))
        for name, text in others.items():
            print(f"{name}  {text}")
    return ExitCode.FAILURE if any(facts["damage"] for facts in found) else ExitCode.DONE


def inspect(args: argparse.Namespace) -> int:
    """Print one checkpoint's description.

    Exit code 1 if it is damaged, as far as can be told without reading it all.
    """
    folder = find_checkpoint(args.path, args.checkpoint)
    try:
        description = read_description(folder)
        RawReader(folder, description.tensors)  # the index makes sense, files are there and of the right length
    except DamagedCheckpointError as error:
        return complain(str(error), ExitCode.FAILURE)
    sizes = _sizes(description)
    if args.json:
        facts: Facts = {"checkpoint": str(folder)}
        facts |= _summary(description)
        facts |= {"loader": description.loader, "bytes": sizes, "config": description.config}
        facts["metrics"] = [rank.get("metrics") for rank in description.ranks]
        print(json.dumps(facts, indent=2))
        return ExitCode.DONE
    lines = {
        "checkpoint": str(folder),
        "step": f"{description.step:,}",
        "samples": f"{description.samples:,}",
        "epoch": f"{description.loader.get('epoch', 0)}, {description.loader.get('samples', 0)} samples into it",
        "written": f"{_when(description)} by {_ranks(description)}",
        "accuracy": _accuracy(description),
        "centers": f"{description.num_classes:,} x {description.embedding_dim}",
        "backbone": _setting(description, "backbone", "name"),
        "loss": _setting(description, "head", "loss"),
    } | {f"{name} MiB": f"{size / MIB:,.1f}" for name, size in sizes.items()}
    for name, value in lines.items():
        print(f"{name:22}{value}")
    return ExitCode.DONE


def verify(args: argparse.Namespace) -> int:
    """Check every checkpoint of a run, or one."""
    found: list[Facts] = []
    for folder in _folders(args.path, args.checkpoint):
        try:
            checked = RawReader(folder, read_description(folder).tensors).verify()
            found.append({"checkpoint": str(folder), "whole": True, "bytes": checked})
        except DamagedCheckpointError as error:
            found.append({"checkpoint": str(folder), "whole": False, "damage": str(error)})
        if not args.json:
            facts = found[-1]
            state = f"whole, {facts['bytes'] / MIB:,.1f} MiB" if facts["whole"] else f"damaged: {facts['damage']}"
            print(f"{folder}: {state}")
    if args.json:
        print(json.dumps(found, indent=2))
    return ExitCode.DONE if all(facts["whole"] for facts in found) else ExitCode.FAILURE


def _folders(path: Path, which: str | None) -> list[Path]:
    """All checkpoints of a run folder, or the one that is meant."""
    found = find_checkpoint(path, which)  # says what is wrong where there is none
    return [found] if which is not None or found == path else complete_checkpoints(path)


def _summary(description: Description) -> Facts:
    score = description.score
    return {
        "step": description.step,
        "samples": description.samples,
        "written": datetime.fromtimestamp(description.written, tz=UTC).isoformat(timespec="seconds"),
        "ranks": description.world_size,
        "num_classes": description.num_classes,
        "embedding_dim": description.embedding_dim,
        "total_bytes": description.nbytes,
        "accuracy": None if score is None else {"pairs": score.pairs, "mean": score.accuracy},
    }


def _line(facts: Facts) -> str:
    if facts["damage"] is not None:
        return f"{facts['checkpoint']}  damaged: {facts['damage']}"
    accuracy = facts["accuracy"]
    shown = "" if accuracy is None else f"  {accuracy['pairs']} {accuracy['mean']:.2%}"
    return (
        f"{facts['checkpoint']}  {facts['written']}  {facts['total_bytes'] / MIB:,.1f} MiB  "
        f"ranks {facts['ranks']}{shown}{''.join(f'  {mark}' for mark in facts['marks'])}"
    )


def _when(description: Description) -> str:
    return datetime.fromtimestamp(description.written, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _ranks(description: Description) -> str:
    return f"{description.world_size} {'rank' if description.world_size == 1 else 'ranks'}"


def _accuracy(description: Description) -> str:
    score = description.score
    return "not verified" if score is None else f"{score.accuracy:.2%} on {score.pairs}"


def _setting(description: Description, table: str, key: str) -> str:
    values = description.config.get(table)
    return str(values.get(key, "?")) if isinstance(values, dict) else "?"


def _sizes(description: Description) -> dict[str, int]:
    """Bytes by kind of state, largest first."""
    sizes: Counter[str] = Counter()
    for name, entry in description.tensors.items():
        parts = name.split(".")
        kind = {"shared": parts[1] if len(parts) > 1 else "", "centers": "centers"}.get(parts[0], parts[-1])
        kind = {"momentum": "center_momentum", "optimizer": "backbone optimizer"}.get(kind, kind)
        sizes[kind] += sum(chunk["size"] for chunk in entry["chunks"])
    return dict(sizes.most_common())
