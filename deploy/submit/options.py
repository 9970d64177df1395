"""The options of ``pfc submit`` that all targets share, and how their values are read."""

import argparse
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from deploy.submit.environment import refuse_secret
from deploy.submit.errors import SubmitError
from deploy.submit.job import Toleration, Volume

DEFAULT_GRACE_SECONDS = 600
EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every target understands, or refuses with a reason."""
    parser.add_argument("config", type=Path, metavar="RUN.toml", help="run configuration")

    def several(option: str, metavar: str, text: str, dest: str | None = None) -> None:
        dest = dest or option.strip("-").replace("-", "_")
        parser.add_argument(
            option, dest=dest, action="append", default=[], metavar=metavar, help=f"{text} (repeatable)"
        )

    several("--set", "table.key=value", "override a value of it", "overrides")
    parser.add_argument("--dry-run", action="store_true", help="print exactly what would be sent, and send nothing")
    parser.add_argument("--no-data", action="store_true", help="this machine does not see the data: check the rest")
    parser.add_argument("--name", help="of the run (default: from run.output)")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default 1)")
    ranks = parser.add_mutually_exclusive_group()
    ranks.add_argument("--gpus-per-node", type=int, metavar="G", help="GPUs of each, with one rank on each GPU")
    ranks.add_argument("--ranks-per-node", type=int, metavar="R", help="ranks of each, on CPUs (default 1)")
    parser.add_argument("--image", metavar="I", help="of containers")
    parser.add_argument("--queue", metavar="Q", help="partition of Slurm, local queue of Kueue")
    parser.add_argument("--cpus", metavar="C", help="of each node's part: 8")
    parser.add_argument("--memory", metavar="M", help="of each node's part: 64Gi")
    parser.add_argument("--shm", metavar="S", help="size of /dev/shm in containers: 8Gi")
    several("--toleration", "key=value:effect", "of a Kubernetes taint; value and effect may be left out")
    several("--node-selector", "k=v", "label that nodes must have")
    several("--volume", "SRC:DST", "a folder that containers see; SRC:DST:ro: read-only")
    several("--env", "NAME=VALUE", "set a variable (shown by --dry-run)")
    several("--pass-env", "NCCL_*", "variables of this shell (shown by --dry-run)")
    several("--secret", "VAR=secret/key", "a variable by reference, never a value")
    parser.add_argument(
        "--grace",
        type=int,
        default=DEFAULT_GRACE_SECONDS,
        metavar="SECONDS",
        help="for a checkpoint, when asked to stop (default %(default)s)",
    )
    parser.add_argument("--time-limit", type=int, metavar="SECONDS", help="stop after that long (default: never)")


def parse_volume(text: str) -> Volume:
    """``SRC:DST`` or ``SRC:DST:ro``. Raises SubmitError."""
    parts = text.split(":")
    read_only = len(parts) == 3 and parts[2] == "ro"
    if not (len(parts) == 2 or read_only or (len(parts) == 3 and parts[2] == "rw")) or not all(parts):
        raise SubmitError(f"--volume {text}: write SRC:DST or SRC:DST:ro")
    if not PurePosixPath(parts[1]).is_absolute():
        raise SubmitError(f"--volume {text}: {parts[1]} must be an absolute path, it is the container's")
    return Volume(parts[0], parts[1], read_only)


def parse_toleration(text: str) -> Toleration:
    """``key``, ``key=value``, each with ``:effect`` or without. Raises SubmitError."""
    rest, _, effect = text.partition(":")
    key, equals, value = rest.partition("=")
    if not key or effect not in EFFECTS:
        raise SubmitError(f"--toleration {text}: write key=value:effect, with an effect of {', '.join(EFFECTS[1:])}")
    return Toleration(key, value if equals else None, effect)


def parse_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Of ``NAME=VALUE`` each. Raises SubmitError, also for a name that is there twice."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise SubmitError(f"{option} {name}: write NAME=VALUE")
        if name in pairs:
            raise SubmitError(f"{option} {name} is given twice")
        pairs[name] = value
    return pairs


def parse_environment(texts: Iterable[str]) -> dict[str, str]:
    """Of ``--env``. Raises SubmitError, also for what cannot be a variable's name and for secrets."""
    found = parse_pairs("--env", texts)
    for name in found:
        _check_variable("--env", name)
        refuse_secret(name, "--env")
    return found


def parse_secrets(texts: Iterable[str]) -> dict[str, str]:
    """``VAR=secret-name/key``. Raises SubmitError without repeating what may be the secret itself."""
    found = parse_pairs("--secret", texts)
    for name, reference in found.items():
        _check_variable("--secret", name)
        secret, _, key = reference.partition("/")
        if not secret or not key or "/" in key:
            raise SubmitError(f"--secret {name}: write {name}=SECRET/KEY, which names where the value is kept")
    return found


def _check_variable(option: str, name: str) -> None:
    if not (name.isascii() and name.isidentifier()):
        raise SubmitError(f"{option} {name}: not a variable's name; use letters, digits and '_'")
