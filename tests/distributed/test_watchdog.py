"""Something happens to one rank: the others end in time, with one line that says which and where."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import doomed_ranks
import pytest
from commands import environment
from doomed_ranks import CASES

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    """By case and rank: exit code and what was printed."""
    folder = tmp_path_factory.mktemp("doomed")
    played = subprocess.run(
        [sys.executable, doomed_ranks.__file__, str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert played.returncode == 0, played.stderr
    found: dict[str, dict[str, Any]] = json.loads((folder / "outcomes.json").read_text())
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_the_other_ranks(name: str, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
    case, ended = CASES[name], {int(rank): each for rank, each in outcomes[name].items()}
    assert {rank: each["code"] for rank, each in ended.items()} == {rank: case.ends[rank] for rank in ended}, ended
    for rank, each in ended.items():
        if each["code"] == 0:
            assert each["printed"] == ""
        elif each["code"] > 0 and rank not in case.untold:
            lines = each["printed"].splitlines()
            assert len(lines) == 1, lines
            assert lines[0].startswith(f"pfc: error: rank {rank}: ")
            for words in case.told:
                assert words in lines[0]


def test_the_usual_limits_keep_the_promise_of_a_minute() -> None:
    usual = type(doomed_ranks.LIMITS)()
    assert usual.silence_seconds <= 30
    assert usual.join_seconds <= 50
