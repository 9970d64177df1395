"""The batch script of a run: what ``sbatch`` is given, whole, and what ``--dry-run`` prints.

Slurm starts it on the first node of each allocation. It starts one launcher on every node, and when they have ended it
decides what comes next: after a failure the same nodes have a second chance, after another one, or a stop, Slurm is to
queue the run again. It carries the configuration itself: what is edited after a run was submitted does not touch it,
however often it starts again.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from deploy.submit.errors import SubmitError
from deploy.submit.job import Job

MEETING_SECONDS = 120  # Slurm starts all tasks of a step at once
PULL_SECONDS = 900  # nodes that have to pull an image of gigabytes first are not ready together
MARGIN_SECONDS = 30  # between the launcher's own SIGKILL of its workers and Slurm's of everything
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}

# Exit codes on their way through srun, which returns the highest of all tasks: in the order in which they count.
_NODE = """\
trap : TERM USR1 INT  # the launcher hears them, too; this shell waits for it
toml=$(mktemp "${TMPDIR:-/tmp}/pfc-XXXXXX") && printf '%s\\n' "$PFC_RUN_TOML" > "$toml" || exit 11
export PET_NODE_RANK=$SLURM_PROCID
@python@ -m deploy.launch.agent -m trainer train "$toml"
code=$?
rm -f "$toml"
case $code in 0) exit 0 ;; 75) exit 10 ;; 2) exit 12 ;; *) exit 11 ;; esac
"""

_BODY = """\
folder=@folder@
failures_file=$folder/$SLURM_JOB_ID.failures
max_restarts=@max_restarts@
failures=${SLURM_RESTART_COUNT:-0}
say() { echo "pfc slurm: $*"; }
tell() { echo "$*" > "$folder/$SLURM_JOB_ID.ended"; }  # for pfc status

# Asked to stop: by "pfc cancel" (TERM), or by Slurm before the time limit (USR1). All ranks write a checkpoint.
cancelled='' out_of_time='' step=''
# shellcheck disable=SC2317  # the traps call it
stop() { [ -z "$step" ] || scancel --signal=TERM "$SLURM_JOB_ID"; }  # reaches the launchers, not this script
trap 'cancelled=yes; stop' TERM
trap 'out_of_time=yes; stop' USR1

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol --oneliner show node "$first" | grep -o 'NodeAddr=[^ ]*' | cut -d = -f 2)
export PET_NNODES=$SLURM_JOB_NUM_NODES PET_NPROC_PER_NODE=@ranks@ PET_MAX_RESTARTS=0
export PET_MASTER_ADDR=${address:-$first} PET_MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=@shutdown@ PFC_MEETING_SECONDS=@meeting@
@exports@
PFC_RUN_TOML=$(cat <<'END_OF_RUN_TOML'
@toml@
END_OF_RUN_TOML
)
export PFC_RUN_TOML

# One launcher on each node. What it returns is written as 0 done, 10 stopped (75), 11 failure (1), 12 bad input (2).
node=$(cat <<'END_OF_NODE'
@node@
END_OF_NODE
)
say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST"
here=''  # whether these nodes have had their second chance
while true; do
    srun @srun@ bash -c "$node" &
    step=$!
    [ -z "$cancelled$out_of_time" ] || kill "$step"  # asked before there was a step
    while true; do  # a signal ends wait, but not the step
        wait "$step"
        code=$?
        kill -0 "$step" 2> /dev/null || break
    done
    step=''
    case $code in 0) code=0 ;; 10) code=75 ;; 12) code=2 ;; *) code=1 ;; esac

    again=''
    if [ "$code" = 0 ] || [ "$code" = 2 ] || [ -n "$cancelled" ]; then
        say "ended with code $code${cancelled:+, cancelled}"
        break
    elif [ "$code" = 75 ] || [ -n "$out_of_time" ]; then
        again="stopped with code $code${out_of_time:+ before the time limit}"
        break
    fi
    [ ! -d "$folder" ] || failures=$(cat "$failures_file" 2> /dev/null || echo 0)
    if [ "$failures" -ge "$max_restarts" ]; then
        say "failed, after $failures restarts"
        break
    fi
    failures=$((failures + 1))
    [ ! -d "$folder" ] || echo "$failures" > "$failures_file"
    again="failure $failures of at most $max_restarts"
    [ -z "$here" ] || break  # perhaps other nodes do better
    # Here it goes on at once; from the queue after two minutes at best, and maybe behind others.
    say "$again: started again on the same nodes"
    here=yes
done
if [ -n "$again" ]; then
    say "$again: Slurm queues it again"
    trap '' TERM USR1
    scontrol requeue "$SLURM_JOB_ID" && exit "$code"
    say "Slurm does not queue it again: submit it again to go on"
fi
tell "$code${cancelled:+ cancelled}"
exit "$code"
"""


@dataclass(frozen=True)
class SlurmOptions:
    """What this target alone is told. python: of the nodes. sbatch: further options, as sbatch has them.
    meeting_seconds: that launchers wait for each other; None: MEETING_SECONDS, with an image PULL_SECONDS.
    """

    max_restarts: int
    python: str | None
    sbatch: tuple[str, ...]
    meeting_seconds: int | None = None


def render_script(job: Job, options: SlurmOptions, folder: Path, python: str) -> str:
    """``folder``: of the run in the registry, where its output goes; ``python``: of the nodes."""
    directives = [
        f"job-name={job.name}",
        f"nodes={job.nodes}",
        "ntasks-per-node=1",
        "requeue",
        "open-mode=append",
        f"output={_quoted(output_pattern(folder))}",
    ]
    if job.queue is not None:
        directives.append(f"partition={job.queue}")
    if job.gpus:
        directives.append(f"gpus-per-node={job.ranks_per_node}")
    if job.resources.cpus is not None:
        directives.append(f"cpus-per-task={job.resources.cpus}")
    if job.resources.memory is not None:
        directives.append(f"mem={megabytes(job.resources.memory)}M")
    if job.deadline_seconds is not None:
        minutes, seconds = divmod(job.deadline_seconds, 60)
        directives += [f"time={minutes}:{seconds:02}", f"signal=B:USR1@{job.grace_seconds}"]
    lines = ["#!/bin/bash", *(f"#SBATCH --{directive}" for directive in directives)]
    lines += [f"#SBATCH {option}" for option in options.sbatch]
    variables = {**job.passed_through, **job.environment}
    values = {
        "folder": shlex.quote(str(folder)),
        "max_restarts": str(options.max_restarts),
        "ranks": str(job.ranks_per_node),
        "shutdown": str(job.grace_seconds - MARGIN_SECONDS),
        "meeting": str(options.meeting_seconds or (MEETING_SECONDS if job.image is None else PULL_SECONDS)),
        "exports": "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()),
        "toml": job.config_text.rstrip("\n"),
        "node": _NODE.replace("@python@", shlex.quote(python)).rstrip("\n"),
        "srun": shlex.join(_srun_options(job)),
    }
    return "\n".join([*lines, "", re.sub(r"@(\w+)@", lambda match: values[match[1]], _BODY)])


def output_pattern(folder: Path) -> str:
    """Of the file with all output of a job, as sbatch takes it."""
    return f"{str(folder).replace('%', '%%')}/slurm-%j.log"


def megabytes(amount: str) -> int:
    """ "64Gi" and "64G" as Slurm counts, 1 at least. Raises SubmitError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(i?)", amount, re.ASCII)
    if match is None or (match[3] and not match[2]):
        raise SubmitError(f"--memory {amount}: write 64Gi, 64G or 65536Mi")
    base = 1024 if match[3] else 1000
    return max(1, -(-int(float(match[1]) * base ** _UNITS[match[2]]) // 1024**2))


def _srun_options(job: Job) -> list[str]:
    options = [
        "--label",  # every line says of which node it is
        f"--nodes={job.nodes}",
        f"--ntasks={job.nodes}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=0",  # ranks tell each other what happened and end by themselves
        "--wait=0",
    ]
    if job.resources.cpus is not None:
        options.append(f"--cpus-per-task={job.resources.cpus}")  # sbatch's own does not reach it
    if job.image is not None:
        options.append(f"--container-image={job.image}")
        mounts = [f"{each.source}:{each.target}{':ro' if each.read_only else ''}" for each in job.volumes]
        if mounts:
            options.append(f"--container-mounts={','.join(mounts)}")
    return options


def _quoted(text: str) -> str:
    """For a #SBATCH line, which knows quotes, not the shell's other ways."""
    return f'"{text}"' if re.search(r"\s", text) else text
