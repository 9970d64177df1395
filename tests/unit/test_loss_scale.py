"""float16's scale: grows slowly, shrinks at once, and never below 1."""

import pytest

from trainer.engine.loss_scale import GROW_AFTER, INITIAL, LossScaler

pytestmark = pytest.mark.unit


def test_it_doubles_after_many_good_steps_and_halves_at_an_overflow() -> None:
    scaler = LossScaler()
    for _ in range(GROW_AFTER - 1):
        assert not scaler.follow(finite=True)
    assert scaler.scale == INITIAL
    scaler.follow(finite=True)
    assert scaler.scale == 2 * INITIAL
    scaler.follow(finite=True)
    assert scaler.follow(finite=False)
    assert (scaler.scale, scaler.good_steps) == (INITIAL, 0)


def test_an_overflow_at_the_smallest_scale_is_none_of_the_scale() -> None:
    scaler = LossScaler(3.0)
    found = [(scaler.follow(finite=False), scaler.scale) for _ in range(4)]
    assert found == [(True, 1.5), (True, 1.0), (False, 1.0), (False, 1.0)]


def test_its_state_goes_on() -> None:
    scaler, other = LossScaler(64.0), LossScaler()
    scaler.follow(finite=True)
    other.load_state(scaler.state())
    assert other.state() == {"scale": 64.0, "good_steps": 1}
