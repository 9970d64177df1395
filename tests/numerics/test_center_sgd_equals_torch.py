"""CenterSGD is torch.optim.SGD on dense centers: any settings, any schedule, any gap between a row's gradients."""

import math

import pytest
from head_accuracy import expect_screened
from sgd_pair import LATE, NEVER, ONCE, USUAL, Pair, Schedule, Settings

pytestmark = pytest.mark.numerics


def in_steps(step: int) -> Settings:
    return {"lr": 0.1 * 0.1 ** (step // 20)}


def warm_up(step: int) -> Settings:
    return {"lr": 0.1 * min(1.0, step / 30)}


def cosine_to_zero(step: int) -> Settings:
    return {"lr": 0.05 * (1.0 + math.cos(math.pi * min(step, 59) / 59))}


def new_momentum(step: int) -> Settings:
    return {"momentum": (0.9, 0.5, 0.2, 0.95)[step // 11 % 4]}


def new_decay(step: int) -> Settings:
    return {"weight_decay": (5e-4, 0.1, 0.0)[step // 13 % 3]}


def everything_new(step: int) -> Settings:
    return warm_up(step) | new_momentum(step) | new_decay(step)


SCHEDULES = [in_steps, warm_up, cosine_to_zero, new_momentum, new_decay, everything_new]


@pytest.mark.parametrize("weight_decay", [0.0, 5e-4, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_constant_settings(momentum: float, weight_decay: float) -> None:
    pair = Pair({"lr": 0.1, "momentum": momentum, "weight_decay": weight_decay})
    pair.steps(50, ONCE)
    pair.check()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)
def test_changing_settings(schedule: Schedule) -> None:
    pair = Pair(USUAL)
    pair.steps(60, ONCE, schedule)
    pair.check()


@pytest.mark.parametrize(
    ("momentum", "weight_decay"),
    [(0.9, 5e-4), (0.9, 0.1), (0.99, 0.0), (0.81, 0.1), (0.0, 5e-4)],
    ids=["usual", "oscillating", "no decay", "critically damped", "no momentum"],
)
def test_a_gap_of_hundreds_of_steps(momentum: float, weight_decay: float) -> None:
    """A row without a gradient follows a linear recurrence of eigenvalues real, complex or, at 0.81, equal."""
    pair = Pair({"lr": 0.1, "momentum": momentum, "weight_decay": weight_decay})
    pair.steps(3, LATE)
    pair.steps(300, schedule=lambda step: {"lr": 0.1 if step < 200 else 0.03})
    pair.steps(4, LATE)
    pair.check()


def test_some_rows_are_never_touched() -> None:
    """Else the tests above say little. Near-orthogonal negatives get no gradient in a screened step."""
    pair = Pair(USUAL)
    for step in range(5):
        pair.backward(ONCE)
        gradient = pair.head.center_gradient()
        assert gradient is not None
        expect_screened(pair.head.stats, step)
        touched = gradient[NEVER.start : NEVER.stop].count_nonzero(dim=1) > 0
        assert touched.float().mean() < 0.1, "but for those that a step scores as its sample"
        pair.update()
    pair.check()
