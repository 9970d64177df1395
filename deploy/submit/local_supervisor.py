"""Starts all nodes of a local run, and starts them again together: what a scheduler does on a cluster.

python -m deploy.submit.local_supervisor FOLDER

FOLDER holds plan.json and run.toml. SIGTERM and SIGINT are handed to all launchers, each time they come; what they
end with is told in state.json. A supervisor that is killed takes its launchers with it: they are asked to stop.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from deploy.launch.exit_codes import BAD_INPUT, DONE, FAILURE, STOPPED, described, merged
from deploy.submit.environment import for_a_launcher
from deploy.submit.errors import SubmitError
from deploy.submit.local_launch import launcher_command, launcher_settings
from deploy.submit.local_state import LocalState, Plan, last_attempt, output_file
from deploy.submit.processes import ProcessMark

TICK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Supervisor:
    """One run from its first attempt to its end."""

    def __init__(self, plan: Plan, folder: Path, mark: ProcessMark) -> None:
        self._plan = plan
        self._folder = folder
        self._mark = mark
        self._agents: list[subprocess.Popen[bytes]] = []
        self._attempt = last_attempt(folder)
        self._restarts = 0
        self._heard = self._passed_on = 0  # signals, by which a person asks it to stop
        self._deadline = None if plan.deadline_seconds is None else time.monotonic() + plan.deadline_seconds
        self._is_over_time = False
        self._kill_at: float | None = None

    @property
    def _asked(self) -> bool:
        return self._heard > 0

    def run(self) -> None:
        """Until the run has ended for good, and state.json says how."""
        while True:
            self._attempt += 1
            self._start_all()
            codes = self._wait()
            code = merged(dict(enumerate(codes)), asked=self._asked or self._is_over_time)
            again = code == FAILURE and not (self._asked or self._is_over_time)
            if not again or self._restarts == self._plan.max_restarts:
                self._tell(*self._ending(code, codes), code=code, codes=codes)
                return
            self._restarts += 1

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A signal: passed on when all launchers are there to hear it, once each."""
        self._heard += 1

    def _start_all(self) -> None:
        plan, port = self._plan, str(_free_port())
        self._agents = []
        for node in range(plan.nodes):
            if self._asked:
                break
            path = output_file(self._folder, self._attempt, node)
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as output:
                self._agents.append(
                    subprocess.Popen(
                        launcher_command(plan, self._folder),
                        cwd=plan.folder,
                        env=for_a_launcher(launcher_settings(plan, node, port)),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        preexec_fn=_ask_to_stop_with_parent,
                    )
                )
        told = f"attempt {self._attempt}, {self._restarts} of {plan.max_restarts} restarts"
        self._tell("running", told, agents=[agent.pid for agent in self._agents])

    def _wait(self) -> list[int]:
        """Exit codes of all launchers; nodes that a signal kept from being started have stopped."""
        while any(agent.poll() is None for agent in self._agents):
            now = time.monotonic()
            while self._passed_on < self._heard:
                self._passed_on += 1
                self._stop_all(signal.SIGTERM)
            if self._deadline is not None and now > self._deadline and not self._is_over_time:
                self._is_over_time = True
                self._stop_all(signal.SIGTERM)
            if self._kill_at is not None and now > self._kill_at:
                self._stop_all(signal.SIGKILL)
            time.sleep(TICK_SECONDS)
        missing = [STOPPED] * (self._plan.nodes - len(self._agents))
        return [agent.returncode for agent in self._agents] + missing

    def _stop_all(self, number: signal.Signals) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._plan.grace_seconds
        for agent in self._agents:
            with suppress(ProcessLookupError):
                agent.send_signal(number)

    def _ending(self, code: int, codes: list[int]) -> tuple[str, str]:
        """State and detail."""
        what = described(dict(enumerate(codes))).replace("rank", "node")
        if code == DONE:
            return "done", ""
        if code == BAD_INPUT:
            return "bad input", f"{what}: pfc logs {self._plan.name}"
        if self._asked:
            how = "nothing is lost" if code == STOPPED else f"at once ({what}), the newest checkpoint is whole"
            return "cancelled", f"{how}: submit it again to go on"
        if self._is_over_time:
            return "stopped", f"its time limit of {self._plan.deadline_seconds} s is over: submit it again to go on"
        if code == STOPPED:
            return "stopped", "nothing is lost: submit it again to go on"
        return "failed", f"{what} after {self._restarts} restarts: pfc logs {self._plan.name}"

    def _tell(
        self, state: str, detail: str, *, code: int | None = None, codes: Sequence[int] = (), agents: Sequence[int] = ()
    ) -> None:
        counts = (self._attempt, self._restarts)
        LocalState(self._mark, state, detail, *counts, code, tuple(codes), tuple(agents)).write(self._folder)


def _ask_to_stop_with_parent() -> None:
    """In the launcher's process, before it becomes one: SIGTERM when the supervisor is gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Supervise the run in the folder that the command line names."""
    folder = Path(sys.argv[1])
    mark = ProcessMark.of(os.getpid())
    assert mark is not None, "this process runs"
    try:
        supervisor = Supervisor(Plan.read(folder), folder, mark)
    except SubmitError as error:
        print(f"pfc: error: {error}", file=sys.stderr)
        return error.code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.hear)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal it was submitted from has closed
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
