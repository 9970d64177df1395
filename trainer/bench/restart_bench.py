"""A run under the launcher whose ranks are killed one after another: how long until it takes its next step."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trainer
from data_pipeline.identity_names import IDENTITY_NAMES
from data_pipeline.properties import FILE_NAME as PROPERTIES
from data_pipeline.synthetic import synthesize
from trainer.bench.restart_log import ArrivingLines, RankEvents
from trainer.bench.restart_problem import PARTS, Restart, RestartEffort, RestartRow
from trainer.bench.summary import quartiles
from trainer.checkpoint.folders import complete_checkpoints
from trainer.errors import PeerFailedError
from trainer.world import for_a_launcher

EACH = 10  # images of one identity; most identities have none, which changes nothing for the head
LONGEST_WAIT_SECONDS = 300.0
CONFIG = """\
[run]
output = "{output}"
seed = {seed}
[data]
records = "{records}"
image_size = {image_size}
batch_size = {batch}
num_identities = {num_classes}
[backbone]
name = "{backbone}"
embedding_dim = {embedding_dim}
[schedule]
warmup = 1
[train]
steps = 1000000
[checkpoint]
every_steps = {checkpoint_steps}
[log]
every_steps = 1
"""


def bench_restart(effort: RestartEffort, folder: Path, *, after_each: Callable[[int, Restart], None]) -> RestartRow:
    """One row; ``folder``, empty, takes a data set and a run. Raises PeerFailedError where the run itself fails."""
    records = folder / "records"
    identities = max(2, effort.images // EACH)
    synthesize(
        records, identities=identities, images_per_identity=EACH, unseen_identities=8, pairs=20,
        image_size=effort.image_size, seed=effort.seed, style="simple",
    )  # fmt: skip
    for name in (IDENTITY_NAMES, PROPERTIES):  # they speak of the identities that have images
        (records / name).unlink(missing_ok=True)
    output, config = folder / "run", folder / "run.toml"
    values = vars(effort) | {"output": output, "records": records / "train.rec"}
    config.write_text(CONFIG.format(**values), encoding="utf-8")
    with _launched(effort, config) as (process, lines):
        logs = [RankEvents(output / "logs" / f"rank_{rank:04d}.jsonl") for rank in range(effort.world_size)]
        run = _Run(process, lines, logs)
        restarts = []
        for number in range(effort.repetitions):
            restarts.append(run.kill_and_wait(victim=(number + 1) % effort.world_size))
            after_each(number + 1, restarts[-1])
        step_seconds = run.step_seconds()
        newest = complete_checkpoints(output)[-1]
        checkpoint_bytes = sum(path.stat().st_size for path in newest.iterdir())
    low, middle, high = quartiles([each.total for each in restarts])
    parts = {part: statistics.median(getattr(each, part) for each in restarts) for part in PARTS}
    return RestartRow(effort, checkpoint_bytes, step_seconds, middle, low, high, parts)


@contextmanager
def _launched(effort: RestartEffort, config: Path) -> Iterator[tuple["subprocess.Popen[str]", ArrivingLines]]:
    """The run under the launcher; it and its ranks are gone after the block, or when this process is killed."""
    command = [
        *(sys.executable, "-m", "deploy.launch.worker", str(os.getpid())),  # ends with this process
        *("-m", "deploy.launch.agent", "--nproc-per-node", str(effort.world_size)),
        *("--max-restarts", str(effort.repetitions), "-m", "trainer", "train", str(config)),
    ]
    here = str(Path(trainer.__file__).parents[1])  # the same code, whatever is installed
    process = subprocess.Popen(
        command,
        env=for_a_launcher(here),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None, "a pipe"
    lines = ArrivingLines(process.stderr)
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        lines.join()
        process.stderr.close()


class _Run:
    """The run while it is measured."""

    def __init__(self, process: "subprocess.Popen[str]", lines: ArrivingLines, logs: list[RankEvents]) -> None:
        self._process, self._lines, self._logs = process, lines, logs
        self._log = logs[0]

    def kill_and_wait(self, *, victim: int) -> Restart:
        """Let it take steps beyond a checkpoint, kill the rank, and wait for the next step."""
        started = self._wait(lambda: _newest_start(self._log), "start")
        first = int(started["step"]) + 1
        saved = int(self._wait(lambda: self._log.after(started, "checkpoint"), "checkpoint")["step"])
        self._wait(lambda: self._newest_step(started) > max(saved, first), "step after a checkpoint")
        pid = int(_newest_start(self._logs[victim])["pid"])
        killed = time.time()
        os.kill(pid, signal.SIGKILL)

        noticed = self._wait(lambda: self._lines.first_after(killed, "pfc"), "sign that it was noticed")
        ended = self._wait(lambda: self._lines.first_after(killed, "pfc launch: restart "), "restart")
        again = self._wait(lambda: self._log.after(started, "started"), "start")
        if again["step"] < saved:
            raise PeerFailedError(f"the run continued at step {again['step']} although step {saved} was saved")
        step = self._wait(lambda: self._log.after(again, "step"), "first step")
        seconds: dict[str, float] = again["start_seconds"]
        # Backwards from when it said "started": joining, opening, building and loading came right before.
        joined = again["at"] - sum(seconds.values())
        born = process_began(int(again["pid"]))
        return Restart(
            noticed=noticed - killed,
            ended=ended - noticed,
            relaunched=born - ended,
            imports=joined - born,
            first_step=step["at"] - again["at"],
            **seconds,
        )

    def step_seconds(self) -> float:
        """Of a usual step: median of all but the first of each start."""
        usual, first = [], True
        for event in self._log.update():
            if event["event"] == "started":
                first = True
            elif event["event"] == "step":
                if not first:
                    usual.append(float(event["step_seconds"]))
                first = False
        return statistics.median(usual)

    def _newest_step(self, started: dict[str, Any]) -> int:
        steps = [
            event["step"] for event in self._log.events if event["event"] == "step" and event["at"] > started["at"]
        ]
        return max(steps, default=0)

    def _wait(self, look: Callable[[], Any], what: str) -> Any:
        """What ``look`` finds, as soon as it finds something."""
        end = time.monotonic() + LONGEST_WAIT_SECONDS
        while True:
            self._log.update()
            found = look()
            if found:
                return found
            if self._process.poll() is not None or time.monotonic() > end:
                with suppress(OSError):
                    self._process.kill()
                self._lines.join()
                raise PeerFailedError(f"the measured run came to no {what}; its last lines: {self._lines.newest()}")
            time.sleep(0.005)


def _newest_start(log: RankEvents) -> dict[str, Any]:
    """The event, {} before the first."""
    return next((event for event in reversed(log.update()) if event["event"] == "started"), {})


def process_began(pid: int) -> float:
    """When a process began, seconds since 1970, to a hundredth. Raises OSError where it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # the 22nd of proc(5); the first two are cut off
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
