"""A submission is noted before it is sent, forgotten where nothing came of it, and never heard twice."""

import argparse
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.submit.errors import LeftBehindError, SubmitError
from deploy.submit.interruption import interruptible, undisturbed
from deploy.submit.job import Job
from deploy.submit.registry import Registry
from deploy.submit.sending import send
from deploy.submit.target import Distant, Status

pytestmark = pytest.mark.unit

JOB = Job("one", Path("/run.toml"), "", Path("/runs/one"))


class Elsewhere:
    """A target whose current place changes; it tells what it was asked."""

    here = "first"
    state = "done"

    def __init__(self, submit: Callable[[], str] = lambda: "sent", place: str | None = None) -> None:
        self._submit = submit
        self._place = place or Elsewhere.here
        self.cleared: list[str] = []

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--place")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "Elsewhere":
        return cls(place=arguments.place)

    def place(self) -> dict[str, Any]:
        return {"place": self._place}

    def clear(self, name: str) -> None:
        self.cleared.append(name)

    def submit(self, job: Job) -> str:
        return self._submit()

    def status(self, name: str) -> Status:
        return Status(self.state)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr("deploy.submit.own_options.load_target", lambda name: Elsewhere)
    return Registry(tmp_path)


def sent(target: Elsewhere, registry: Registry, job: Job = JOB) -> str:
    assert isinstance(target, Distant)
    return send(target, "elsewhere", job, argparse.Namespace(place=None), registry)  # type: ignore[arg-type]


def test_the_place_is_remembered(registry: Registry) -> None:
    assert sent(Elsewhere(), registry) == "sent"
    assert registry.get("one").options == {"place": "first"}, "though the command line named none"


def test_it_is_noted_while_it_is_sent(registry: Registry) -> None:
    def submit() -> str:
        assert registry.get("one").nodes == 1
        return "sent"

    assert sent(Elsewhere(submit), registry) == "sent"


@pytest.mark.parametrize("error", [SubmitError("refused"), KeyboardInterrupt()])
def test_nothing_came_of_it(registry: Registry, error: BaseException) -> None:
    def submit() -> str:
        raise error

    with pytest.raises(type(error)):
        sent(Elsewhere(submit), registry)
    assert registry.find("one") is None
    sent(Elsewhere(), registry)
    before = registry.get("one")
    with pytest.raises(type(error)):
        sent(Elsewhere(submit), registry, replace(JOB, nodes=7))
    assert registry.get("one") == before, "the run that was is still the one of that name"


def test_what_is_left_behind_can_be_cancelled(registry: Registry) -> None:
    def submit() -> str:
        raise LeftBehindError("refused; left behind: a thing")

    with pytest.raises(LeftBehindError):
        sent(Elsewhere(submit), registry)
    assert registry.get("one").options == {"place": "first"}


def test_room_is_made_where_the_last_one_was(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = Elsewhere(), Elsewhere(), Elsewhere(place="second")
    for target in (first, second, third):
        sent(target, registry)
    assert (first.cleared, second.cleared, third.cleared) == ([], ["one"], []), "the third one goes to another place"
    monkeypatch.setattr(Elsewhere, "state", "running")
    with pytest.raises(SubmitError, match="a run called 'one' is running"):
        sent(second, registry)
    assert second.cleared == ["one"]


def test_a_run_that_cannot_be_asked_about(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(self: Elsewhere, name: str) -> Status:
        raise SubmitError("context kind-1: no such context", 1)

    sent(Elsewhere(), registry)
    monkeypatch.setattr(Elsewhere, "status", status)
    with pytest.raises(SubmitError, match=r"'one' may still live, .*: context kind-1: .*remove .*/one.json to forget"):
        sent(Elsewhere(), registry)
    registry.path_of("one").unlink()
    assert sent(Elsewhere(), registry) == "sent"


def test_a_signal_is_heard_once() -> None:
    former = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), number)
            threading.Event().wait(5)
    with interruptible(), undisturbed():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == former
    thread = threading.Thread(target=lambda: undisturbed().__enter__())
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == former
