"""Slurm's own programs, and what they complain of, in one line."""

import re
import subprocess
from collections.abc import Sequence

from deploy.submit.environment import missing_slurm_settings
from deploy.submit.errors import SubmitError

SECONDS = 60.0
FORBIDDEN = ("nvalid account or account/partition", "ermission denied", "not permitted", "nvalid user id")
_INVALID_JOB = "Invalid job id"


def slurm(words: Sequence[str], *, content: str | None = None) -> str:
    """What the program prints; content: for it to read. Raises SubmitError, one line."""
    if path := missing_slurm_settings():
        raise SubmitError(f"SLURM_CONF={path}: there is no such file; mend it, or unset it")
    try:
        done = subprocess.run(words, input=content or "", capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        raise SubmitError(
            f"{words[0]} is not on this machine: submit from a login node of the cluster, or install Slurm's clients"
        ) from None
    except subprocess.TimeoutExpired:
        raise SubmitError(f"{words[0]} has not answered for {SECONDS:.0f} s: is Slurm's controller up?", 1) from None
    if done.returncode != 0:
        raise SubmitError(*explained(words[0], done.stderr))
    return done.stdout


def knows_job(error: SubmitError) -> bool:
    """Whether the complaint is not that Slurm has forgotten the job."""
    return _INVALID_JOB not in str(error)


def explained(program: str, said: str) -> tuple[str, int]:
    """One line of what a program of Slurm's said, with a way out where there is one; and an exit code."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else f"{program} failed and said nothing"
    text = last.removeprefix("Batch job submission failed: ")
    if "ontact slurm controller" in said or "configuration source" in said or "Zero Bytes" in said:
        return f"{program}: {text}: Slurm's controller does not answer; see scontrol ping, or SLURM_CONF", 1
    if any(words in said for words in FORBIDDEN):
        return f"{program}: {text}: this user may not; try another --queue, or --sbatch=--account=NAME", 2
    detail = f" ({lines[-2]})" if len(lines) > 1 and lines[-2] != text else ""
    return f"{program}: {text}{detail}", 2
