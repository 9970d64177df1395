"""The policy for steps that are not finite: when to pass over them, go back, and end."""

import math
from dataclasses import replace

import pytest
from head_statistics import STATS

from trainer.checkpoint import Passed
from trainer.engine import Outcome
from trainer.failure_config import FailureConfig
from trainer.non_finite import NonFiniteError, NonFiniteGuard
from trainer.step import StepResult

pytestmark = pytest.mark.unit

GOOD = StepResult(STATS, Outcome(True, 2.0))
BAD_LOSS = StepResult(replace(STATS, loss=math.nan), Outcome(False, math.inf))
BAD_GRADIENT = StepResult(STATS, Outcome(False, math.inf))
OVERFLOW = StepResult(STATS, Outcome(False, math.inf, loss_scale=64.0, overflow=True))


def guard(policy: str, **limits: int) -> tuple[NonFiniteGuard, Passed]:
    passed = Passed()
    return NonFiniteGuard(FailureConfig(non_finite=policy, **limits), passed), passed


@pytest.mark.parametrize(
    ("result", "reason"), [(BAD_LOSS, "the loss is not finite"), (BAD_GRADIENT, "the gradient is not finite")]
)
def test_stop_ends_at_the_first(result: StepResult, reason: str) -> None:
    watching, passed = guard("stop")
    assert not watching.judge(GOOD)
    with pytest.raises(NonFiniteError, match=f"^{reason}.*: lower optimizer.lr"):
        watching.judge(result)
    assert passed.non_finite == 1


def test_skip_counts_and_ends_after_too_many_in_a_row() -> None:
    watching, passed = guard("skip", max_skipped_in_a_row=3)
    for result in (BAD_LOSS, BAD_GRADIENT, GOOD, BAD_LOSS, BAD_LOSS):
        assert not watching.judge(result)
    assert (passed.non_finite, passed.in_a_row, watching.in_doubt) == (4, 2, True)
    with pytest.raises(NonFiniteError, match="in 3 steps in a row: lower"):
        watching.judge(BAD_LOSS)


def test_an_overflow_of_float16_is_no_failure() -> None:
    watching, passed = guard("stop")
    for _ in range(20):
        assert not watching.judge(OVERFLOW)
    assert passed == Passed(overflow=20)
    assert not watching.in_doubt


def fail(watching: NonFiniteGuard, times: int) -> list[bool]:
    return [watching.judge(BAD_LOSS) for _ in range(times)]


def test_rollback_goes_back_before_the_first_bad_step_then_further() -> None:
    watching, passed = guard("rollback", max_skipped_in_a_row=3, max_rollbacks=2)
    watching.judge(GOOD)  # step 41
    assert fail(watching, 3) == [False, False, True]  # steps 42 to 44
    assert watching.only_before(44) == 42, "a checkpoint of step 41 is good, later ones are in doubt"
    watching.went_back(40)
    assert (passed.in_a_row, passed.rollbacks, passed.non_finite) == (0, 1, 3)
    # Not one good step from there: step 40 itself is no way back any more.
    assert fail(watching, 3) == [False, False, True]
    assert watching.only_before(47) == 40
    watching.went_back(30)
    # After a good one, what came before the next bad step is worth a try again.
    watching.judge(GOOD)  # step 48
    with pytest.raises(NonFiniteError, match="in 3 steps in a row, after going back to a checkpoint 2 times: lower"):
        fail(watching, 3)


def test_a_good_checkpoint_in_between_makes_a_new_beginning() -> None:
    watching, passed = guard("rollback", max_skipped_in_a_row=1, max_rollbacks=1)
    for _ in range(5):
        assert watching.judge(BAD_LOSS)
        watching.went_back(10)
        watching.saving()
        assert (passed.rollbacks, watching.in_doubt) == (1, True), "nothing has got better yet"
        watching.judge(GOOD)
        watching.saving()
        assert passed.rollbacks == 0


@pytest.mark.parametrize("before", [0, 1])
def test_without_a_checkpoint_there_is_no_way_back(before: int) -> None:
    watching, _ = guard("rollback", max_skipped_in_a_row=2)
    for step in range(before):
        assert fail(watching, 2)[-1]
        watching.went_back(step)
    assert fail(watching, 2)[-1]
    kind = "older " if before else ""
    with pytest.raises(NonFiniteError, match=f"in 2 steps in a row, and there is no {kind}checkpoint to go back to"):
        watching.went_back(None)


@pytest.mark.parametrize(
    ("policy", "key"), [("stop", "max_skipped_in_a_row"), ("stop", "max_rollbacks"), ("skip", "max_rollbacks")]
)
def test_a_limit_that_no_one_reads_is_refused(policy: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' has no meaning for non_finite = '{policy}'"):
        FailureConfig(non_finite=policy, **{key: 7})
