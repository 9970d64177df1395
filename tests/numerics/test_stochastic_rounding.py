"""How bfloat16 centers are written: unbiased, by the same random bits everywhere, and by none where nothing is lost."""

import math

import pytest
import torch

from partial_fc import tile_kernels_native
from partial_fc import tile_kernels_torch as reference
from partial_fc.stochastic_rounding import UPDATE, Rounding, random_bits, round_rows, rounding_key

pytestmark = pytest.mark.numerics

ROUNDING = Rounding(rounding_key(seed=3, step=17, purpose=UPDATE))
VALUES = torch.tensor([0.3, -0.3, 1.0009765625, 3e-39, -7.123e8, 1e-4 / 3, -1.9999, 0.01])


def test_the_mean_is_the_number_itself() -> None:
    """16,384 classes round the same numbers: the mean is within 5 of its own standard deviations, and both
    neighbours occur.
    """
    classes = torch.arange(5_000_000_000, 5_000_000_000 + 2**14)
    stored = round_rows(VALUES.expand(len(classes), -1), ROUNDING, classes).double()
    for column, value in enumerate(VALUES.double()):
        below, above = stored[:, column].aminmax()
        assert below < value < above
        share = (value - below) / (above - below)
        deviation = (above - below) * math.sqrt(share * (1 - share) / len(classes))
        assert abs(stored[:, column].mean() - value) <= 5 * deviation, float(value)
        assert above - below <= 2.0**-7 * value.abs().clamp_min(2.0**-126)


def test_what_bfloat16_holds_is_stored_as_it_is() -> None:
    held = torch.tensor([0.0, -0.0, 1.0, -0.15625, math.inf, -math.inf, 2.0**-130, 3.3895e38]).bfloat16().float()
    stored = round_rows(held.expand(500, -1), ROUNDING, torch.arange(500)).float()
    assert torch.equal(stored, held.expand(500, -1))
    assert torch.equal(stored.signbit(), held.signbit().expand(500, -1))
    payloads = torch.tensor([0x7FC00000, 0x7F800001, -0x400000, 0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    assert round_rows(payloads.expand(500, -1), ROUNDING, torch.arange(500)).isnan().all()


def test_bits_differ_by_seed_step_purpose_class_and_column_and_are_even() -> None:
    classes = torch.arange(700)
    bits = random_bits(ROUNDING, classes, 96)
    assert bits.min() >= 0
    assert bits.max() < 2**16
    ones = (bits[..., None] >> torch.arange(16)) & 1
    assert (ones.double().mean(dim=(0, 1)) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(bits.numel())
    centred = bits.double() - bits.double().mean()
    near = [(centred[1:] * centred[:-1]).mean(), (centred[:, 1:] * centred[:, :-1]).mean()]
    keys = rounding_key(4, 17, UPDATE), rounding_key(3, 18, UPDATE), rounding_key(3, 17, UPDATE + 1)
    others = [random_bits(Rounding(key), classes, 96).double() for key in keys]
    near += [(centred * (other - bits.double().mean())).mean() for other in others]
    assert max(map(abs, near)) < 5 * centred.var() / math.sqrt(bits.numel()), "five standard deviations of chance"
    assert torch.equal(random_bits(ROUNDING, classes[300:], 96), bits[300:]), "whatever else is rounded with them"


@pytest.mark.parametrize("listed", [False, True])
def test_compiled_and_plain_kernels_round_alike(listed: bool) -> None:
    """Weights of 0 moved by -values become the values, exactly, and are then rounded: bit for bit the same."""
    values = torch.cat([torch.randn(300, 37, generator=torch.Generator().manual_seed(1)), VALUES.repeat(300, 1)], dim=1)
    values[5, :3] = torch.tensor([math.inf, -math.inf, math.nan])
    rows = torch.arange(699, 99, -2) if listed else None
    classes = 2**33 + torch.arange(300) if listed else None
    rounding = Rounding(ROUNDING.key, first_class=2**32 - 50, classes=classes)
    found = []
    for kernels in (tile_kernels_native, reference):
        table = torch.zeros(1000, values.shape[1], dtype=torch.bfloat16)
        kernels.sgd_rows(table, None, rows, 7, -values, 1.0, 0.0, 0.0, rounding)
        found.append(table.view(torch.int16))
    assert torch.equal(*found)
    numbers = torch.arange(7, 307) if rows is None else rows
    named = numbers + rounding.first_class if classes is None else classes
    expected = round_rows(values, rounding, named)
    torch.testing.assert_close(found[0][numbers].view(torch.bfloat16), expected, rtol=0.0, atol=0.0, equal_nan=True)
