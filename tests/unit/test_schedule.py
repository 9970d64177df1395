"""Learning rates by hand."""

import pytest

from trainer.schedule import ScheduleConfig, learning_rate_schedule

pytestmark = pytest.mark.unit


def rates(total_steps: int, steps_per_epoch: int = 10, **config: object) -> list[float]:
    schedule = learning_rate_schedule(
        ScheduleConfig(**config), base=0.1, total_steps=total_steps, steps_per_epoch=steps_per_epoch
    )
    return [schedule(step) for step in range(total_steps)]


def test_polynomial_with_warmup() -> None:
    found = rates(6, kind="polynomial", power=2.0, warmup=2)
    assert found == pytest.approx([0.05, 0.1, 0.1, 0.1 * (3 / 4) ** 2, 0.1 * (2 / 4) ** 2, 0.1 * (1 / 4) ** 2])


def test_multistep_in_steps_and_in_epochs() -> None:
    expected = [0.1] * 3 + [0.01] * 2 + [0.001] * 2
    assert rates(7, kind="multistep", milestones=(3, 5)) == pytest.approx(expected)
    assert rates(7, 2, kind="multistep", milestones=(1.5, 2.5), unit="epoch") == pytest.approx(expected)


def test_constant_after_warmup_in_epochs() -> None:
    assert rates(4, 4, kind="constant", warmup=0.5, unit="epoch") == pytest.approx([0.05, 0.1, 0.1, 0.1])


def test_a_warmup_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="lasts 10 of 10 steps"):
        rates(10, warmup=10)


@pytest.mark.parametrize("milestones", [(5, 3), (3, 3)])
def test_milestones_must_rise(milestones: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        ScheduleConfig(kind="multistep", milestones=milestones)
