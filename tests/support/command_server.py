"""``pfc`` commands forked from a process that has imported everything once: seconds less for each than a fresh one.

python command_server.py: reads one JSON request a line, and answers each by its process id, then by its exit code.
A forked command is a process of its own, with its own session, folder, environment and files; what it does not show is
how an interpreter starts and ends. The server ends with the process that asks.
"""

import atexit
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = ("train", "check", "eval", "bench")
PRELOADED = ("torch", *(f"trainer.commands.{command}" for command in COMMANDS))


class CommandServer:
    """The asking side; one for each test process, started when it is first needed."""

    _shared: "CommandServer | None" = None

    @classmethod
    def shared(cls, environment: dict[str, str]) -> "CommandServer":
        if cls._shared is None or cls._shared._process.poll() is not None:
            cls._shared = cls(environment)
        return cls._shared

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment | {"PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(Path(__file__).parent)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        atexit.register(self._process.kill)

    def run(self, request: dict[str, Any], *, deadline_seconds: float) -> int:
        """Exit code as ``subprocess`` gives it. Raises TimeoutExpired; nothing of the command is left then."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        number = self._answer(60.0 + deadline_seconds)  # the first time it has to start
        try:
            return self._answer(deadline_seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)
            self._answer(60.0)
            raise

    def _answer(self, seconds: float) -> int:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired("pfc", seconds)
        line = stdout.readline()
        assert line, "the server of commands has ended"
        return int(line)


def serve() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    answers = os.dup(1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            os.close(answers)
            _become(request)
        os.write(answers, f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: dict[str, Any]) -> NoReturn:
    code: int = 1
    try:
        os.setsid()
        files = ((os.devnull, os.O_RDONLY), (request["out"], os.O_WRONLY), (request["err"], os.O_WRONLY))
        for place, (path, mode) in enumerate(files):
            os.dup2(os.open(path, mode), place)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        sys.argv = ["trainer", *request["arguments"]]
        from trainer.cli import main

        code = main()
    except SystemExit as error:  # argparse's
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
