"""The cut follows what a sample says is dropped; the dense path takes over, and gives back well below its limit."""

import pytest
import torch

from partial_fc.drop_sample import LEVELS, DropSums, level_cut
from partial_fc.tolerance import DENSE_SHARE, HYSTERESIS, ToleranceControl

pytestmark = pytest.mark.unit

CLASSES, SAMPLED, MEASURED = 100_000, 1_000.0, 24


def sums(active: float, *, per_level: float = 1.0, coherent: float = 0.0, chance: float = 1.0) -> DropSums:
    """``active`` large pairs of the first level, then ``per_level`` pairs at each, of 1e6 sampled in all."""
    levels = torch.zeros(LEVELS, 4, dtype=torch.float64)
    levels[:, 0] = per_level
    levels[0, 0] += active
    levels[-1, 0] = 1e6 - levels[:-1, 0].sum()
    cuts = torch.tensor([level_cut(level, 64.0) for level in range(1, LEVELS + 1)], dtype=torch.float64)
    levels[:, 1] = levels[:, 0] * cuts
    levels[:, 2] = levels[:, 3] = levels[:, 0] * cuts**2
    levels[-1, 1:] = 0.0
    mass = float(levels[MEASURED:, 1].sum()) ** 2
    return DropSums(
        levels, 1e6, 0.0, 4e3, coherent * mass, mass, chance * mass**2 * 1e-9, 0.0, 0.0, 4e5, 4e5, SAMPLED, SAMPLED
    )


def decide(control: ToleranceControl, found: DropSums) -> tuple[str, int]:
    control.learn(found, CLASSES, MEASURED)
    decision = control.decide(found, CLASSES, MEASURED)
    control.dense = decision.mode == "dense"
    return decision.mode, decision.level


def test_cuts_fall_by_half_octaves() -> None:
    assert [level_cut(level, 64.0) for level in (0, 1, 2, 3, 24)] == [64.0, 48.0, 32.0, 24.0, 64.0 * 2.0**-12]


def test_a_smaller_tolerance_cuts_lower() -> None:
    chosen = [decide(ToleranceControl(tolerance, 64.0), sums(0.0))[1] for tolerance in (1e-2, 1e-3, 1e-4)]
    assert chosen == sorted(set(chosen))


def test_coherent_drops_cut_lower_than_single_ones() -> None:
    single, together = ToleranceControl(1e-3, 64.0), ToleranceControl(1e-3, 64.0)
    for _ in range(20):  # until rare pairs are known to be none
        alone = decide(single, sums(0.0))
        coherent = decide(together, sums(0.0, coherent=0.5))
    assert coherent[1] > alone[1]


def test_coherence_within_chance_is_not_believed() -> None:
    alone = decide(ToleranceControl(1e-3, 64.0), sums(0.0))
    noise = decide(ToleranceControl(1e-3, 64.0), sums(0.0, coherent=1e-3, chance=1e6))
    assert noise == alone


def test_rare_pairs_lower_the_cut_until_many_samples_have_missed_them() -> None:
    control = ToleranceControl(1e-3, 64.0)
    empty = sums(0.0, per_level=0.0)
    first = decide(control, empty)[1]
    later = [decide(control, empty)[1] for _ in range(20)][-1]
    assert 0 < later < first


def test_the_dense_path_is_left_later_than_it_is_taken() -> None:
    limit = DENSE_SHARE * 1e6
    control = ToleranceControl(1e-3, 64.0)
    few, between, many = (sums(share * limit) for share in (0.3, (1.0 + HYSTERESIS) / 2, 1.5))
    modes = []
    for found in (few, between, many, between, few):
        control.means = {}  # every step counts alone
        modes.append(decide(control, found)[0])
    assert modes == ["screened", "screened", "dense", "dense", "screened"]


def test_state_goes_on_where_it_was() -> None:
    control, copy = ToleranceControl(1e-3, 64.0), ToleranceControl(1e-3, 64.0)
    for _ in range(5):
        decide(control, sums(3.0))
    copy.load_state(control.state())
    assert decide(copy, sums(5.0, coherent=0.1)) == decide(control, sums(5.0, coherent=0.1))
