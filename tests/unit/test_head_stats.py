"""Statistics of micro-batches put together, against those of the whole batch."""

import math
from dataclasses import replace

import pytest
import torch
from head_statistics import STATS

from partial_fc import HeadStats, PartialFC, SFace, combined_stats

pytestmark = pytest.mark.unit


def statistics(head: PartialFC, embeddings: torch.Tensor, identities: torch.Tensor) -> HeadStats:
    head(embeddings.clone().requires_grad_(), identities)
    assert head.stats is not None
    return head.stats


def test_parts_of_a_batch_add_up_to_it() -> None:
    head = PartialFC(50, 8, SFace(b=1.45), tolerance=0.0)
    torch.manual_seed(0)
    embeddings, identities = torch.randn(11, 8), torch.randint(50, (11,))
    whole = statistics(head, embeddings, identities)
    cuts = [slice(0, 6), slice(6, 7), slice(7, 11)]
    found = combined_stats([statistics(head, embeddings[cut], identities[cut]) for cut in cuts])
    assert (found.samples, found.active_pairs, found.mode) == (11, whole.active_pairs, whole.mode)
    names = ["loss", "loss_intra", "loss_inter", "theta_positive", "theta_negative", "theta_negative_std"]
    for name in [*names, "gradient_norm"]:
        assert found[name] == pytest.approx(whole[name], rel=1e-6), name


def test_errors_count_by_the_gradient_they_are_of() -> None:
    small = replace(STATS, samples=1, gradient_norm=3.0, error=0.2, mode="screened", cut=0.5)
    large = replace(STATS, samples=3, gradient_norm=4.0, error=0.1, mode="screened", cut=0.25)
    found = combined_stats([small, large])
    # Parts of the mean over 4 samples: 3/4 and 12/4, errors 0.2 and 0.1 of them.
    assert found.gradient_norm == pytest.approx(math.hypot(0.75, 3.0))
    assert found.error == pytest.approx(math.hypot(0.15, 0.3) / math.hypot(0.75, 3.0))
    assert (found.mode, found.cut, found.bytes_moved) == ("screened", 0.5, 2000)
    assert combined_stats([small, replace(large, mode="dense")]).mode == "dense"


def test_nothing_to_measure_stays_nothing() -> None:
    none = replace(STATS, samples=2, theta_negative=math.nan, theta_negative_std=math.nan)
    found = combined_stats([none, none])
    assert math.isnan(found.theta_negative)
    assert math.isnan(found.theta_negative_std)
    some = replace(STATS, samples=2)
    assert combined_stats([none, some]).theta_negative == STATS.theta_negative
    assert combined_stats([some]) is some


def test_a_loss_that_is_not_a_number_is_not_hidden() -> None:
    parts = [replace(STATS, samples=2), replace(STATS, samples=2, loss=math.nan, gradient_norm=math.inf)]
    found = combined_stats(parts)
    assert math.isnan(found.loss)
    assert found.gradient_norm == math.inf
