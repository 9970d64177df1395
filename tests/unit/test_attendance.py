"""Who is missing, silent or stuck, judged by a clock that the tests move."""

from collections.abc import Callable

import pytest

from trainer.attendance import Attendance, Beat
from trainer.errors import ExitCode
from trainer.failure import Failure
from trainer.failure_config import FailureConfig
from trainer.pulse import EVALUATING, FIRST_STEP, JOINING, LEFT, OPENING, STEP, Standing

pytestmark = pytest.mark.unit

LIMITS = FailureConfig(join_seconds=50, silence_seconds=30, stall_seconds=300)


def beat(count: int, phase: str = STEP, step: int = 7, part: str = "head", changes: int | None = None) -> Beat:
    return Beat(count, count if changes is None else changes, Standing(phase, step, part), "host-b", 4711)


def everybody_beats(attendance: Attendance, world_size: int, now: float, make: Callable[[int], Beat]) -> None:
    for rank in range(world_size):
        attendance.hear(rank, make(rank), now)


def text(failure: Failure | None) -> str:
    assert failure is not None
    return failure.text


def test_beats_and_failures_travel_whole() -> None:
    sent = beat(3, part="optimizer")
    assert Beat.from_json(sent.to_json().encode()) == sent
    failure = Failure("rank 1 failed, ä", ExitCode.BAD_INPUT, absent=2)
    assert Failure.from_json(failure.to_json().encode()) == failure
    for damaged in (b"", b"[]", b"{}", b'{"text": "a", "code": 7, "absent": 0}', b"\xff"):
        assert "not known" in Failure.from_json(damaged).text


def test_a_rank_that_never_comes_is_missed_after_the_joining_time_alone() -> None:
    attendance = Attendance(LIMITS)
    attendance.follow(range(4), now=10.0)
    for rank in (0, 2):
        attendance.hear(rank, beat(1, JOINING), 10.0)
    assert attendance.expected == [1, 3]
    for now in range(10, 60):
        for rank in (0, 2):
            attendance.hear(rank, beat(now, JOINING), now)
        assert attendance.judge(now, of_all=True) is None
    failure = attendance.judge(60.5, of_all=True)
    assert text(failure) == "rank 1 and 1 more did not come within 50 s: see what its launcher says"
    assert failure is not None
    assert failure.absent == 2


def test_a_silent_rank_is_named_with_its_place_and_a_slow_one_is_not() -> None:
    attendance = Attendance(LIMITS)
    attendance.follow(range(3), now=0.0)
    everybody_beats(attendance, 3, 0.0, lambda rank: beat(1))
    for now in (10, 20, 30):
        attendance.hear(0, beat(now), now)
        attendance.hear(1, beat(now, changes=1), now)  # alive and getting nowhere: slow
        attendance.hear(2, beat(1), now)  # the same beat, read again
        assert attendance.judge(now, of_all=True) is None
    failure = attendance.judge(30.5, of_all=True)
    assert text(failure) == (
        "rank 2 (host-b, process 4711) has been silent for 30 s, last seen in step 7 (head): "
        "killed, frozen, or its machine or link is lost"
    )
    assert text(attendance.lost(3.5, limit=3.0)).startswith("rank 2 ")


def test_silence_may_last_longer_while_a_run_starts_and_for_ever_after_goodbye() -> None:
    attendance = Attendance(LIMITS)
    attendance.follow(range(2), now=0.0)
    attendance.hear(0, beat(1, OPENING), 0.0)
    attendance.hear(1, beat(1, LEFT), 0.0)
    assert attendance.judge(49.0, of_all=True) is None
    assert "rank 0" in text(attendance.judge(51.0, of_all=True))
    attendance.hear(0, beat(2, LEFT), 51.0)
    assert attendance.judge(1e9, of_all=True) is None
    assert attendance.ended(lambda _: True) is None


def test_ended_processes_are_named_without_waiting() -> None:
    attendance = Attendance(LIMITS)
    attendance.follow(range(3), now=0.0)
    everybody_beats(attendance, 3, 0.0, lambda rank: beat(1))
    assert attendance.ended(lambda _: False) is None
    assert text(attendance.ended(lambda _: True)) == (
        "rank 0 (host-b, process 4711) and 2 more ended without a word, last seen in step 7 (head): killed or crashed"
    )


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("head", "data", "head"), "rank 1 (host-b, process 4711), in step 7 (data), got no further for 301 s"),
        (("agreement", "agreement", "backward"), "rank 2 (host-b, process 4711), in step 7 (backward), got no"),
        (("backward",) * 3, "all ranks together got no further for 301 s"),
    ],
)
def test_a_stall_names_the_rank_that_the_others_wait_for(parts: tuple[str, ...], told: str) -> None:
    attendance = Attendance(LIMITS)
    attendance.follow(range(3), now=0.0)
    everybody_beats(attendance, 3, 0.0, lambda rank: beat(0, part=parts[rank]))
    for now in range(1, 301):
        everybody_beats(attendance, 3, now, lambda rank, now=now: beat(now, part=parts[rank], changes=0))
        assert attendance.judge(now, of_all=True) is None
    everybody_beats(attendance, 3, 301, lambda rank: beat(301, part=parts[rank], changes=0))
    assert text(attendance.judge(301, of_all=True)).startswith(told)


def test_who_does_not_see_all_ranks_calls_no_stall() -> None:
    attendance = Attendance(LIMITS)
    attendance.follow({0, 2}, now=0.0)
    for now in range(0, 2000, 10):
        for rank in (0, 2):
            attendance.hear(rank, beat(now, changes=0), now)
        assert attendance.judge(now, of_all=False) is None
    assert attendance.judge(1990, of_all=True) is not None


def test_one_rank_that_moves_is_no_stall_and_neither_is_a_long_phase() -> None:
    attendance = Attendance(LIMITS)
    attendance.follow(range(2), now=0.0)
    for now in range(0, 1000, 10):
        attendance.hear(0, beat(now, part="data", changes=now // 200), now)
        attendance.hear(1, beat(now, part="head", changes=0), now)
        assert attendance.judge(now, of_all=True) is None
    for phase in (EVALUATING, FIRST_STEP):
        for now in range(1000, 2000, 10):
            attendance.hear(0, beat(now, phase, changes=0), now)
            attendance.hear(1, beat(now, changes=0), now)
            assert attendance.judge(now, of_all=True) is None


def test_following_other_ranks_starts_afresh() -> None:
    attendance = Attendance(LIMITS)
    attendance.follow({0, 1}, now=0.0)
    everybody_beats(attendance, 2, 0.0, lambda rank: beat(1))
    attendance.follow(range(3), now=100.0)
    assert (attendance.present, attendance.expected) == ([0, 1], [2])
    attendance.follow({1, 2}, now=100.0)
    assert attendance.present == [1]
    attendance.follow(range(3), now=100.0)
    attendance.hear(0, beat(1), 101.0)  # an old beat, but just met again
    attendance.hear(1, beat(2), 101.0)
    attendance.hear(2, beat(1), 101.0)
    assert attendance.judge(130.0, of_all=True) is None
