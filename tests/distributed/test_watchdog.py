"""Something happens to one rank: the others end in time, with one line that says which and where."""

import time
from collections.abc import Iterator

import pytest
from doomed_ranks import CASES, LIMITS, Doomed, Ended
from ports import free_port

pytestmark = pytest.mark.distributed

AT_ONCE = 6  # cases: their ranks mostly wait
DEADLINE_SECONDS = 60.0  # the project's promise, with limits ten times shorter than its own


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[int, Ended]]]:
    folder = tmp_path_factory.mktemp("doomed")
    found: dict[str, dict[int, Ended]] = {}
    names = list(CASES)
    for first in range(0, len(names), AT_ONCE):
        together = names[first : first + AT_ONCE]
        running = {name: Doomed(name, folder / str(first + place), free_port()) for place, name in enumerate(together)}
        deadline = time.monotonic() + DEADLINE_SECONDS
        try:
            for doomed in running.values():
                doomed.strike_host(deadline)
        finally:
            for name, doomed in running.items():
                found[name] = doomed.end(deadline)
    yield found


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_the_other_ranks(name: str, outcomes: dict[str, dict[int, Ended]]) -> None:
    case, ended = CASES[name], outcomes[name]
    assert {rank: each.code for rank, each in ended.items()} == {rank: case.ends[rank] for rank in ended}, ended
    for rank, each in ended.items():
        if each.code == 0:
            assert each.printed == ""
        elif isinstance(each.code, int) and each.code > 0 and rank not in case.untold:
            assert len(each.complaints) == 1, each.printed
            assert each.complaints[0].startswith(f"pfc: error: rank {rank}: ")
            for words in case.told:
                assert words in each.complaints[0], each.printed
            assert "Traceback" not in each.printed


def test_the_limits_tried_here_are_shorter_than_the_usual_ones() -> None:
    usual = type(LIMITS)()
    assert usual.silence_seconds <= 30
    assert usual.join_seconds <= 50
