"""Signals: the first asks, one sent twice is one wish, a second ends, also while the main thread hears nothing."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from commands import environment

from trainer.errors import ExitCode
from trainer.stopping import StopRequest, stop_on_signals

pytestmark = pytest.mark.unit


class Ended(Exception):  # noqa: N818  # what os._exit would do
    pass


def end(code: int) -> None:
    raise Ended(code)


def test_the_first_signal_asks_and_calls_once() -> None:
    calls: list[str] = []
    request = StopRequest(end=end, now=lambda: 0.0)
    request.call_on_first(lambda: calls.append("first"))
    assert not request.asked
    request.hear(signal.SIGUSR1)
    request.hear(signal.SIGTERM)  # Slurm: first a warning, at the time limit this
    assert (request.asked, request.signal_name, calls) == (True, "SIGTERM", ["first"])


def test_a_late_listener_is_called_at_once() -> None:
    request = StopRequest(end=end, now=lambda: 0.0)
    request.hear(signal.SIGTERM)
    calls: list[str] = []
    request.call_on_first(lambda: calls.append("first"))
    assert calls == ["first"]


def test_what_terminal_and_launcher_both_send_is_one_wish(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    request = StopRequest(end=end, now=lambda: now)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        request.hear(number)
    now = 101.9
    request.hear(signal.SIGINT)
    now = 102.1
    with pytest.raises(Ended, match=str(int(ExitCode.FAILURE))):
        request.hear(signal.SIGINT)
    assert "second SIGINT: ended at once, without saving" in capsys.readouterr().err


def test_a_process_that_leaves_keeps_its_exit_code() -> None:
    now = 0.0
    request = StopRequest(end=end, now=lambda: now)
    request.hear(signal.SIGTERM)
    request.satisfied()
    now = 60.0
    request.hear(signal.SIGTERM)


SCRIPT = """
import ctypes, os
from trainer.stopping import stop_on_signals
with stop_on_signals() as stop:
    stop.call_on_first(lambda: (print("heard", stop.signal_name, flush=True), os._exit(7)))
    print("ready", flush=True)
    libc = ctypes.CDLL(None)
    class SignalSet(ctypes.Structure):
        _fields_ = [("bits", ctypes.c_ulong * 16)]
    everything = SignalSet()
    libc.sigfillset(ctypes.byref(everything))
    libc.pthread_sigmask(0, ctypes.byref(everything), None)  # this thread gets none: as deaf as inside a collective
    while True:
        libc.sleep(60)
"""


def test_a_signal_is_heard_while_the_main_thread_is_inside_a_library() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert (out, process.returncode) == ("heard SIGTERM\n", 7)
    finally:
        process.kill()
        process.communicate()


def test_after_the_block_signals_change_nothing_any_more() -> None:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        heard = threading.Event()
        with stop_on_signals() as request:
            request.call_on_first(heard.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert heard.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_name == "SIGUSR1"
        assert signal.set_wakeup_fd(-1) == -1, "the former one is back"
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
