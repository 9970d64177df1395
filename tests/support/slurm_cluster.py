"""A real Slurm cluster of two nodes on one machine: its own munged, slurmctld and two slurmd, below one folder."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from commands import MARK, environment, kill_marked
from ports import free_port

SBIN = "/usr/sbin:/sbin"
PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}

CONFIGURATION = """\
ClusterName=pfc
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobRequeue=1
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=n1,n2 DisableRootJobs=YES State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; "" when there can."""
    if os.geteuid() != 0:
        return "needs root, for slurmd"
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    absent = [package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None]
    return f"needs Slurm (packages {' '.join(absent)})" if absent else ""


@dataclass
class Cluster:
    folder: Path
    mark: str

    @property
    def settings(self) -> dict[str, str]:
        """Variables of a user's shell on its login node."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *words: str) -> str:
        """What one of Slurm's programs prints; they must all succeed."""
        done = subprocess.run(
            words, env=environment() | self.settings, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (words, done.stderr, self.logs())
        return done.stdout

    def processes_of(self, job: str) -> list[int]:
        """Of the job's batch script, its srun, and what they started on either node."""
        wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_CONF={self.settings['SLURM_CONF']}".encode()}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or is the kernel's
                continue
            if wanted <= set(variables):
                found.append(int(folder.name))
        return found

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(self.folder.glob("*.log")))


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Up, with both nodes idle; whatever happens in the block, all of it is gone after it."""
    folder.mkdir()
    made = Cluster(folder, uuid.uuid4().hex)
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    ports = dict(zip(("controller", "first", "second"), _three_ports(), strict=True))
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, **ports))
    for node in ("n1", "n2"):
        (folder / f"spool-{node}").mkdir()
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        with (folder / f"{words[0]}-{len(daemons)}.out.log").open("wb") as output:
            daemons.append(
                subprocess.Popen(
                    words,
                    env=environment() | made.settings | {MARK: made.mark, "PATH": f"{os.environ['PATH']}:{SBIN}"},
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    try:
        start(
            "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        _wait(lambda: (folder / "munge.socket").exists(), made, daemons)
        start("slurmctld", "-D", "-f", str(folder / "slurm.conf"))
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf"))

        def idle() -> bool:
            done = subprocess.run(
                ["sinfo", "--noheader", "--partition=main", "--Node", "--format=%T"],
                env=environment() | made.settings, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            return done.stdout.split() == ["idle", "idle"]

        _wait(idle, made, daemons)
        yield made
    finally:
        for daemon in reversed(daemons):
            daemon.kill()
        kill_marked(made.mark)
        for daemon in daemons:
            daemon.wait(timeout=20)


def _three_ports() -> Sequence[int]:
    found: set[int] = set()
    while len(found) < 3:
        found.add(free_port())
    return sorted(found)


def _wait(condition: object, made: Cluster, daemons: list["subprocess.Popen[bytes]"]) -> None:
    assert callable(condition)
    end = time.monotonic() + 60
    while not condition():
        assert all(daemon.poll() is None for daemon in daemons), made.logs()
        assert time.monotonic() < end, made.logs()
        time.sleep(0.1)
