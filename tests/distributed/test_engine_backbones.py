"""Transformers and CNNs learn the same under DDP and under DeepSpeed, in float32 and under bfloat16 autocast.

Weights that ZeRO 3 has split are put together only around the modules that own them: a network that reached for one
elsewhere would fail here, and nowhere in a test of one rank.
"""

from typing import Any

import pytest
import torch
from backbones_by_engine import BACKBONES, BUCKET, CASES, STAGES, Trained, by_engine
from engine_training import difference, flat
from gang import run_gang

pytestmark = pytest.mark.distributed

# An untrained network makes much of rounding: of one step in the next. bfloat16 rounds what differs in the last bit of
# float32 to neighbours 1 in 256 apart, now and then.
LIMITS = {name: (1e-3, 1e-2) if "bfloat16" in name else (1e-5, 1e-3) for name in BACKBONES}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Trained]]:
    folder = tmp_path_factory.mktemp("backbones")
    return run_gang(2, by_engine, folder, folder=folder / "gang", deadline_seconds=240)


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_every_backbone_learns_the_same_under_every_engine(
    ranks: list[dict[Any, Trained]], name: str, stage: int
) -> None:
    """In two pieces, clipped; with activation checkpointing under DeepSpeed and without under DDP."""
    for rank in ranks:
        found, truth = rank[name, stage], rank[name, None]
        for step, limit in enumerate(LIMITS[name]):
            ours, theirs = found.weights[step], truth.weights[step]
            assert ours.keys() == theirs.keys()
            assert difference(flat(ours), flat(theirs), flat(truth.begun)) < limit
            assert found.gradient_norms[step] == pytest.approx(truth.gradient_norms[step], rel=limit)
            assert found.losses[step] == pytest.approx(truth.losses[step], rel=limit)
        assert found.learning_rates == truth.learning_rates == [0.01, 0.02]


def test_bfloat16_is_another_arithmetic(ranks: list[dict[Any, Trained]]) -> None:
    """Near float32, and not it: autocast has acted."""
    for stage in (None, 3):
        rounded, exact = ranks[0]["vit_t bfloat16", stage], ranks[0]["vit_t", stage]
        ours, theirs = rounded.weights[0], exact.weights[0]
        assert all(value.dtype != torch.bfloat16 for value in ours.values()), "weights stay in float32"
        assert 2e-3 < difference(flat(ours), flat(theirs), flat(exact.begun)) < 0.5


def test_deepspeeds_own_json_reaches_deepspeed(ranks: list[dict[Any, Trained]]) -> None:
    assert {rank["vit_t", stage].bucket for rank in ranks for stage in STAGES["vit_t"]} == {BUCKET}


def test_a_pretrained_backbone_is_split_as_it_was_saved(ranks: list[dict[Any, Trained]]) -> None:
    for rank in ranks:
        saved, begun = rank["vit_t", None].weights[-1], rank["pretrained", 3].begun
        assert all(torch.equal(begun[name], value) for name, value in saved.items())
