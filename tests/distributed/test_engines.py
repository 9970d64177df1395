"""DDP and DeepSpeed (ZeRO 0 to 3) learn the same on 1, 2 and 3 ranks, however a step is cut into micro-batches."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_training import ADAMW, CLASSES, DIM, SGD, Learned, Training, difference, flat, network, train, world_of
from gang import run_gang

from partial_fc import CosFace, HeadStats
from partial_fc.class_shard import class_shard
from partial_fc.initial_centers import initial_centers

pytestmark = pytest.mark.distributed

STEPS = 5
LIMIT = 1e-5
ZEROS = (None, 0, 1, 2, 3)
# Every way to take a step, and the plain one that it must equal.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sgd": ({"tolerance": 1e-5, "clip_norm": None}, {"clip_norm": None}),
    "sgd, checkpointed, in 3 pieces": ({"checkpointed": True, "micro_batches": 3}, {}),
    "adamw, in 5 pieces": ({"optimizer": ADAMW, "micro_batches": 5}, {"optimizer": ADAMW}),
}
# Three ranks add up in another order than two; they need not do everything again.
CASES = {
    world_size: [(zero, way) for zero in zeros for way in ways]
    for world_size, zeros, ways in (
        (1, ZEROS, ["sgd", "adamw, in 5 pieces"]),
        (2, ZEROS, list(WAYS)),
        (3, (None, 2, 3), ["adamw, in 5 pieces"]),
    )
}


def all_cases(rank: int, world_size: int) -> dict[Any, Learned]:
    with world_of(rank, world_size) as world:
        return {
            (zero, way): train(Training(zero=zero, **WAYS[way][0]), world, range(STEPS))
            for zero, way in CASES[world_size]
        }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[Any, Learned]]]:
    """What each rank of each world learned."""
    folder = tmp_path_factory.mktemp("engines")
    return {size: run_gang(size, all_cases, folder=folder / str(size), deadline_seconds=240) for size in CASES}


@pytest.fixture(scope="module")
def truth() -> dict[str, Learned]:
    """One process, DDP's own path, no pieces, every pair scored."""
    with_plain_settings = {}
    with world_of(0, 1) as world:
        for way, (_, plain) in WAYS.items():
            with_plain_settings[way] = train(Training(**plain), world, range(STEPS))
    return with_plain_settings


@pytest.mark.parametrize(
    ("world_size", "zero", "way"), [(size, zero, way) for size, cases in CASES.items() for zero, way in cases]
)
def test_every_engine_learns_the_same(
    found: dict[int, list[dict[Any, Learned]]], truth: dict[str, Learned], world_size: int, zero: int | None, way: str
) -> None:
    ranks = [rank[zero, way] for rank in found[world_size]]
    wanted = truth[way]
    begun = flat(network(Training()).state_dict())
    for rank in ranks:
        assert rank.weights.keys() == wanted.weights.keys()
        assert difference(flat(rank.weights), flat(wanted.weights), begun) < LIMIT
        assert torch.equal(flat(rank.weights), flat(ranks[0].weights)), "all ranks go on with the same weights"
    centers = torch.cat([rank.centers for rank in ranks])
    at_first = initial_centers(class_shard(CLASSES, 1, 0), DIM, 0)
    assert difference(centers, wanted.centers, at_first) < LIMIT
    for rank in ranks:
        for ours, theirs in zip(rank.results, wanted.results, strict=True):
            assert ours.outcome.applied
            assert ours.outcome.gradient_norm == pytest.approx(theirs.outcome.gradient_norm, rel=LIMIT)
            assert_same_statistics(ours.stats, theirs.stats, exact=WAYS[way][0].get("tolerance") is None)


def assert_same_statistics(ours: HeadStats, theirs: HeadStats, *, exact: bool) -> None:
    """``exact``: nothing was dropped, so that pairs can be counted."""
    assert ours.samples == theirs.samples
    names = ["loss", "loss_intra", "loss_inter", "theta_positive", "gradient_norm"]
    if exact:
        assert ours.active_pairs == theirs.active_pairs
        names += ["theta_negative", "theta_negative_std"]
    for name in names:
        # The loss of a screened step is in part an estimate.
        limit = 1e-4 if name.startswith("loss") and not exact else LIMIT
        assert ours[name] == pytest.approx(theirs[name], rel=limit, abs=1e-6), name


def test_clipping_shortens_the_backbones_gradient_alone(truth: dict[str, Learned]) -> None:
    norms = [result.outcome.gradient_norm for result in truth["adamw, in 5 pieces"].results]
    assert min(norms) > 20.0, "all of them were clipped, and are told as they were"
    with world_of(0, 1) as world:
        loose, tight = (train(Training(optimizer=SGD, clip_norm=clip), world, range(1)) for clip in (None, 1.0))
    assert torch.equal(loose.centers, tight.centers)
    beginning = flat(network(Training()).state_dict())
    decay = SGD.weight_decay * beginning
    longer, shorter = ((beginning - flat(each.weights)) / SGD.lr - decay for each in (loose, tight))
    norm = loose.results[0].outcome.gradient_norm
    assert float(shorter.norm()) == pytest.approx(1.0, rel=1e-3)
    assert float(longer.norm()) == pytest.approx(norm, rel=1e-4)
    assert difference(shorter * norm, longer, torch.zeros_like(longer)) < 1e-2  # differences of float32 weights


@pytest.mark.parametrize("pieces", [2, 3, 5, 12])
def test_micro_batches_add_up_to_the_batch_in_float64(pieces: int) -> None:
    """Backbone in float64; the head rounds to float32, 8e-7 here whatever the pieces. A wrong weight shows as 1e-2."""
    plain = Training(dtype=torch.float64, loss=CosFace(scale=1.0, margin=0.2))
    with world_of(0, 1) as world:
        whole, cut = (train(replace(plain, micro_batches=count), world, range(STEPS)) for count in (1, pieces))
    assert difference(flat(cut.weights), flat(whole.weights), flat(network(plain).state_dict())) < 2e-6
    assert difference(cut.centers, whole.centers, initial_centers(class_shard(CLASSES, 1, 0), DIM, 0)) < 2e-6
