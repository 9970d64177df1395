"""Normalisation of a batch split over ranks: what one rank computes from the whole batch, on every rank."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gang import run_gang
from split_norm import LAYER_LIMITS, LAYERS, layer_error, relative
from split_training import DIM, Training, difference, many, run

from trainer.backbones import BackboneConfig, SyncBatchNorm

pytestmark = pytest.mark.distributed

LIMITS = {torch.float64: 1e-8, torch.float32: 1e-4}


def configured(name: str, normalization: str, **options: Any) -> BackboneConfig:
    return BackboneConfig.model_validate(
        {"name": name, "embedding_dim": DIM, "normalization": normalization, **options}
    )


TRAININGS = {
    f"{normalization} {str(dtype).removeprefix('torch.')}": Training(
        configured("iresnet18", normalization), steps=20, dtype=dtype, small=True
    )
    for normalization, dtype in product(("sync_batch", "group"), LIMITS)
}
DEEP = {
    "mobilefacenet": Training(configured("mobilefacenet", "sync_batch"), steps=1, dtype=torch.float64),
    "vit_t": Training(configured("vit_t", "sync_batch", patch_size=8), steps=1, dtype=torch.float64),
    "checkpointed": Training(
        configured("iresnet18", "sync_batch", activation_checkpointing=True), steps=3, dtype=torch.float64, small=True
    ),
}
UNCHECKPOINTED = Training(configured("iresnet18", "sync_batch"), steps=3, dtype=torch.float64, small=True)


def refusals(rank: int, world_size: int) -> list[str]:
    """What is said to a global batch of one, on the rank that has it and on those that do not."""
    said = []
    for values in (1 if rank == 0 else 0, 0):
        try:
            SyncBatchNorm(3)(torch.zeros(values, 3))
        except ValueError as error:
            said.append(str(error))
    return said


def subgroups(rank: int, world_size: int) -> float:
    """Ranks 0 and 1 normalise together, whoever else is there: the error of the mean."""
    group = dist.new_group([0, 1])
    if rank > 1:
        return 0.0
    norm = SyncBatchNorm(1, momentum=1.0, group=group)
    norm(torch.tensor([[1.0], [2.0]]) + 10 * rank)
    assert norm.running_mean is not None
    return abs(float(norm.running_mean) - 6.5)


def trainings_of(world_size: int) -> dict[str, Training]:
    """Synchronising takes its time where ranks outnumber cores, so three ranks leave float32 to two and four."""
    if world_size != 3:
        return TRAININGS
    return {name: training for name, training in TRAININGS.items() if training.dtype == torch.float64} | DEEP


def one_rank(rank: int, world_size: int) -> dict[str, Any]:
    return {
        "layers": [layer_error(layer, rank, world_size) for layer in LAYERS],
        "refusals": refusals(rank, world_size),
        "subgroup": subgroups(rank, world_size),
        "trained": many(rank, world_size, trainings_of(world_size)),
    }


@pytest.fixture(scope="module")
def gang(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[dict[str, Any]]]:
    results: dict[int, list[dict[str, Any]]] = {}

    def of_world(world_size: int) -> list[dict[str, Any]]:
        if world_size not in results:
            results[world_size] = []  # what fails once is not tried again by every test
            folder = tmp_path_factory.mktemp("gang")
            results[world_size] = run_gang(world_size, one_rank, folder=folder, deadline_seconds=200)
        assert results[world_size], "see the first failure of this world size"
        return results[world_size]

    return of_world


@pytest.fixture(scope="module")
def truth() -> Callable[[Training], Any]:
    known: dict[Training, Any] = {}

    def of(training: Training) -> Any:
        if training not in known:
            known[training] = run(training, 0, 1)
        return known[training]

    return of


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_synchronised_layers_are_those_of_the_whole_batch(world_size, gang):
    for rank in gang(world_size):
        for layer, error in zip(LAYERS, rank["layers"], strict=True):
            assert error < LAYER_LIMITS[layer.dtype], layer


@pytest.mark.parametrize(
    ("world_size", "name"), [(size, name) for size in (2, 3, 4) for name in TRAININGS if name in trainings_of(size)]
)
def test_training_does_not_depend_on_the_split(world_size, name, gang, truth):
    check(truth(TRAININGS[name]), [rank["trained"][name] for rank in gang(world_size)], LIMITS[TRAININGS[name].dtype])


@pytest.mark.parametrize("name", DEEP)
def test_other_networks_do_not_depend_on_the_split(name, gang, truth):
    training = UNCHECKPOINTED if name == "checkpointed" else DEEP[name]
    check(truth(training), [rank["trained"][name] for rank in gang(3)], 1e-8)


def check(wanted, ranks, limit):
    for found in ranks:
        assert relative(found.embeddings, wanted.embeddings) < limit
        for part in ("gradients", "weights", "statistics"):
            if getattr(wanted, part):
                assert difference(getattr(found, part), getattr(wanted, part)) < limit, part
        assert relative(found.centers, wanted.centers) < limit
        assert found.losses == pytest.approx(wanted.losses, rel=limit)
        assert all(torch.equal(found.weights[name], ranks[0].weights[name]) for name in wanted.weights)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_a_global_batch_of_one_is_refused_on_all_ranks(world_size, gang):
    for rank in gang(world_size):
        assert len(rank["refusals"]) == 2
        assert "fewer than two values per channel in the global batch" in rank["refusals"][0]
        assert rank["subgroup"] < 1e-6


def test_the_trainings_compared_learn(truth):
    for training in TRAININGS.values():
        losses = truth(training).losses
        assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
