"""Runs a module or script as torchrun would, in a process that ends with its launcher.

python -m deploy.launch.worker LAUNCHER_PID -m MODULE ARGUMENTS...
python -m deploy.launch.worker LAUNCHER_PID SCRIPT ARGUMENTS...

torchrun puts every worker into a session of its own: one whose launcher is killed would train on, unseen, and write
into the folder of the run that has been started in its place.
"""

import ctypes
import os
import runpy
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which started it, ends; exits if that has happened already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def main() -> None:
    """Become the module or script that the arguments name."""
    end_with(int(sys.argv[1]))
    # Until the module has its own ways: Python's with Ctrl-C is a traceback out of some import, and whoever started
    # the launcher may have had it ignore SIGTERM, by which torchrun ends workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if sys.argv[2] == "-m":
        module = sys.argv[3]
        sys.argv = sys.argv[3:]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[2:]
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
