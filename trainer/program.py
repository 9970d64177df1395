"""``pfc`` as a process: its exit code is the contract's, whatever threads are still at work when it ends."""

import atexit
import os
import sys
import threading
from typing import NoReturn

from trainer.errors import ExitCode


def program() -> NoReturn:
    """Run the command line and end the process with its exit code.

    A daemon thread that comes back from native code into an interpreter that is being taken down is unwound through
    C++ frames, which end the whole process with SIGABRT (python/cpython#87135). So where one still lives, a checkpoint
    being written or a lost link that holds the watchdog, the process leaves right after its exit handlers.
    """
    ending = _Ending()
    atexit.register(ending.leave)  # the first to be registered is the last to be called
    from trainer.cli import main

    try:
        ending.code = main()
    except SystemExit as error:  # argparse's
        ending.code = error.code if isinstance(error.code, int) else int(error.code is not None)
    sys.exit(ending.code)


class _Ending:
    """code: the exit code; a failure until something better is known, as after an exception that nobody caught."""

    def __init__(self) -> None:
        self.code: int = ExitCode.FAILURE

    def leave(self) -> None:
        """As the last exit handler: end here if a daemon thread lives."""
        if all(thread is threading.current_thread() or not thread.daemon for thread in threading.enumerate()):
            return
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # the reader is gone, or it is closed
                self.code = self.code or ExitCode.FAILURE
        os._exit(self.code)
