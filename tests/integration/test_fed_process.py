"""The process that talks to a service for a run: nobody waits for it, and nothing is lost on the way to it."""

import json
from pathlib import Path

import pytest
from prometheus_server import wait_for

from trainer.writers.pipe import FedProcess

pytestmark = pytest.mark.integration

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def behaviour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("FED_PROCESS_OUTPUT", str(tmp_path / "kept"))
    return monkeypatch


def test_a_process_gets_every_byte(behaviour: pytest.MonkeyPatch, tmp_path: Path) -> None:
    behaviour.setenv("FED_PROCESS", "keeping")
    process = FedProcess("fed_process", log=tmp_path / "log")
    sent = [{"number": number, "text": "ä" * 5000} for number in range(100)]  # more than a pipe holds
    for message in sent:
        process.send(message)
    assert process.finish(deadline_seconds=60)
    assert [json.loads(each) for each in (tmp_path / "kept").read_text().splitlines()] == sent
    assert process.told() == ["kept"]
    process.close()


def test_a_process_that_does_not_read_holds_nobody_up(behaviour: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a limit of its own the first full pipe would block for ten minutes, longer than the test may take."""
    behaviour.setenv("FED_PROCESS", "deaf")
    process = FedProcess("fed_process", log=tmp_path / "log")
    for _ in range(20_000):
        process.send({"text": "x" * 100})
    assert process.dropped > 0
    assert wait_for(process.told, "what it says") == ["I do not read"]
    assert process.ended is None
    assert not process.finish(deadline_seconds=0.5)
    assert process.ended == -9
    process.close()


def test_a_process_that_ends_is_noticed(behaviour: pytest.MonkeyPatch, tmp_path: Path) -> None:
    behaviour.setenv("FED_PROCESS", "dying")
    process = FedProcess("fed_process", log=tmp_path / "log")
    wait_for(lambda: process.ended is not None, "its end")
    process.send({"a": 1})
    assert process.ended == 1
    assert (tmp_path / "log").read_text().strip() == "no key"
    assert not process.finish(deadline_seconds=1)
    process.close()
