"""The one file of ``deploy.submit`` that reads this process's environment."""

import fnmatch
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.submit.errors import SubmitError

STATE_DIR = "PFC_STATE_DIR"
_LAUNCHERS = re.compile(r"(PET_\w+|RANK|WORLD_SIZE|LOCAL_RANK|MASTER_ADDR|MASTER_PORT)")
_SECRET = re.compile(r"(^|_)(API_?KEY|ACCESS_KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where this user's submitted runs are noted: ``$PFC_STATE_DIR``, or ``~/.local/state/pfc/jobs``."""
    chosen = environment.get(STATE_DIR)
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".local" / "state" / "pfc" / "jobs"


def variables_like(patterns: Iterable[str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """This shell's variables that the patterns (``NCCL_*``) fit. Raises SubmitError for what looks like a secret."""
    found: dict[str, str] = {}
    for pattern in patterns:
        names = fnmatch.filter(sorted(environment), pattern)
        for name in names:
            refuse_secret(name, "--pass-env")
        found |= {name: environment[name] for name in names}
    return found


def refuse_secret(name: str, option: str) -> None:
    """Raise SubmitError for a name whose value is nobody's business: what is submitted is shown by ``--dry-run``."""
    if _SECRET.search(name):
        raise SubmitError(
            f"{option} {name} looks like a secret, and its value would be shown and stored: use --secret "
            f"{name}=SECRET/KEY (Kubernetes); locally and on Slurm exported variables reach the run by themselves"
        )


def for_a_launcher(
    changes: Mapping[str, str], without: Iterable[str] = (), environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """This process's environment for a launcher that it starts: nobody's rank, and ``changes``."""
    dropped = set(without)
    kept = {key: value for key, value in environment.items() if not _LAUNCHERS.fullmatch(key) and key not in dropped}
    return kept | dict(changes)


def missing_slurm_settings() -> str:
    """SLURM_CONF where it names no file, for which Slurm's programs would look for a minute; else ""."""
    path = os.environ.get("SLURM_CONF", "")
    return path if path and not Path(path).is_file() else ""
