"""A rank killed at any moment of saving: the old checkpoint is whole or the new one is, and nothing else stays.

All moments of one rank, beside the training and while it waits; on two ranks each of them in turn. The first moments
come before a checkpoint has its name, the last ones while older ones are deleted.
"""

import json
import signal
import sys
from typing import Any

import pytest
from commands import ROOT, run
from killed_savers import NEW, OLD

pytestmark = pytest.mark.integration

KILLED, TOO_LARGE = -signal.SIGKILL, -signal.SIGXFSZ
KINDS = [(1, True, 0), (1, False, 0), (2, True, 0), (2, True, 1)]
IDS = ["one rank", "one rank, synchronous", "first of two", "second of two"]
Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    folder = tmp_path_factory.mktemp("killed")
    script = ROOT / "tests" / "support" / "killed_savers.py"
    ended = run([sys.executable, str(script), str(folder)], cwd=folder, deadline_seconds=240)
    assert ended.code == 0, ended.err
    found: list[Outcome] = json.loads((folder / "outcomes.json").read_text())
    return found


def of_kind(outcomes: list[Outcome], kind: tuple[int, bool, int], moment: str) -> list[Outcome]:
    ranks, asynchronous, victim = kind
    wanted = {"ranks": ranks, "asynchronous": asynchronous, "victim": victim, "moment": moment}
    return [each for each in outcomes if wanted.items() <= each.items()]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_first_the_old_one_then_the_new_one(kind: tuple[int, bool, int], outcomes: list[Outcome]) -> None:
    moments = of_kind(outcomes, kind, "operation")
    ranks, _, victim = kind
    for each in moments[:-1]:
        assert each["codes"][victim] == KILLED
        assert all(code == 1 for rank, code in enumerate(each["codes"]) if rank != victim), "the others end, too"
    assert moments[-1]["codes"] == [0] * ranks, "that was the last moment"
    begins = [each["begin"] for each in moments]
    assert begins == sorted(begins)
    assert set(begins) == {OLD, NEW}
    if victim == 0:
        assert begins[:-1].count(OLD) > 2, "before it has its name"
        assert begins[:-1].count(NEW) > 5, "while older ones are deleted"


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_the_old_one_stays_when_it_is_torn_or_copied_in_part(
    kind: tuple[int, bool, int], outcomes: list[Outcome]
) -> None:
    _, asynchronous, victim = kind
    torn, copied = of_kind(outcomes, kind, "byte"), of_kind(outcomes, kind, "copy")
    assert [each["codes"][victim] for each in torn] == [TOO_LARGE] * 3
    assert [each["codes"][victim] for each in copied] == [KILLED] * asynchronous
    assert {each["begin"] for each in torn + copied} == {OLD}


def test_what_counts_is_whole_and_the_next_start_leaves_nothing_else(outcomes: list[Outcome]) -> None:
    for each in outcomes:
        assert each["whole"] in ([1, OLD], [1, OLD, NEW], [OLD, NEW]), each
        assert each["begin"] == max(each["whole"]), each
        assert each["damages"] == [], each
        expected = {f"step_{step:08d}" for step in each["whole"]}
        assert set(each["names"]) - {"best"} == expected, each
        files = {"checkpoint.json", *(f"rank_{rank:04d}.bin" for rank in range(each["ranks"]))}
        assert set(each["inside"]) == files, each


def test_what_it_learns_is_what_it_would_have_learned(outcomes: list[Outcome]) -> None:
    for each in outcomes:
        # Another number of ranks adds up in another order.
        assert each["distance"] <= (0.0 if each["ranks"] == 1 else 1e-6), each
