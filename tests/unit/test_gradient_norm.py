"""The norm by which a gradient is clipped is exact however large the network is."""

import math

import pytest
import torch

from trainer.engine.gradient import agreed_norm
from trainer.world import World

pytestmark = pytest.mark.unit

ALONE = World(0, 1, 0, torch.device("cpu"))


def test_of_many_numbers() -> None:
    """10 million in one tensor: torch's own float32 norm is off by 4e-4 there, DeepSpeed's in float64 is not."""
    torch.manual_seed(0)
    gradient = torch.randn(10_000_019)
    assert agreed_norm([gradient], ALONE) == pytest.approx(float(gradient.double().norm()), rel=1e-7)


def test_of_all_shapes_together() -> None:
    torch.manual_seed(1)
    gradients = [torch.randn(shape) for shape in ((), (1,), (5000, 3), (64, 32, 3, 3), (4096,), (0, 4))]
    gradients[3] = gradients[3].to(memory_format=torch.channels_last)
    gradients.append(torch.randn(70, 90).t()[::2])
    truth = math.sqrt(sum(float(each.double().square().sum()) for each in gradients))
    assert agreed_norm(gradients, ALONE) == pytest.approx(truth, rel=1e-6)
    assert agreed_norm([], ALONE) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_number_that_is_not_finite(bad: float) -> None:
    for size in (3, 10_000):
        gradient = torch.ones(size)
        gradient[-1] = bad
        assert agreed_norm([torch.ones(5), gradient], ALONE) == math.inf
