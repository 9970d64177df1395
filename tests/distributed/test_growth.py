"""A run grown from another one: who stays keeps center and momentum, who joins starts at the mean of the images.

Numbers are mixed up, some people leave, some join; the old run had three ranks, the new one has one, two or three.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from gang import run_gang
from growing import (
    HEADS,
    NEW,
    OLD,
    PER_IDENTITY,
    config_for,
    grown_run,
    images_of,
    old_run,
    small_buffers,
    write_people,
)
from torch import Tensor
from torch.nn.functional import normalize

from data_pipeline import RecordReader
from trainer.checkpoint import load_backbone

pytestmark = pytest.mark.distributed

WORLDS = (1, 2, 3)
STAYS = [number for number, name in enumerate(NEW) if name in OLD]
JOINS = [number for number, name in enumerate(NEW) if name not in OLD]
WERE = [OLD.index(NEW[number]) for number in STAYS]
Ranks = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("growth")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return write_people(folder / "new people", NEW)


@pytest.fixture(scope="module")
def old(folder: Path) -> Ranks:
    records = write_people(folder / "old people", OLD)
    return run_gang(3, old_run, folder, records, folder=folder / "gang old")


@pytest.fixture(scope="module")
def grown(folder: Path, data: Path, old: Ranks) -> dict[int, Ranks]:
    growth = {"images_per_identity": PER_IDENTITY}
    several = {world: run_gang(world, grown_run, folder, data, growth, folder=folder / f"{world}") for world in (2, 3)}
    return several | {1: [alone(folder, data, growth)]}


def alone(folder: Path, data: Path, growth: dict[str, Any]) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as every rank of a gang: on more, a convolution rounds otherwise
    try:
        with pytest.MonkeyPatch.context() as patch:
            small_buffers(patch.setattr)
            return grown_run(0, 1, folder, data, growth)
    finally:
        torch.set_num_threads(threads)


def whole(ranks: Ranks, head: str, key: str) -> Tensor:
    return torch.cat([rank[head][key] for rank in ranks])


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("head", list(HEADS))
def test_who_stays_keeps_center_and_momentum(head: str, world: int, grown: dict[int, Ranks], old: Ranks) -> None:
    before, momentum_before = whole(old, head, "centers"), whole(old, head, "momentum")
    after, momentum = whole(grown[world], head, "centers"), whole(grown[world], head, "momentum")
    assert len(after) == len(NEW)
    torch.testing.assert_close(after[STAYS], before[WERE], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(momentum[STAYS], momentum_before[WERE], rtol=1e-5, atol=1e-8)
    assert (momentum_before[WERE].norm(dim=1) > 0).all()
    assert momentum[JOINS].abs().max() < 1e-8, "nobody else's momentum, and no share of the decay"


@pytest.mark.parametrize("head", list(HEADS))
def test_the_same_at_any_number_of_ranks(head: str, grown: dict[int, Ranks]) -> None:
    alone = whole(grown[1], head, "centers")
    for world in WORLDS[1:]:
        assert torch.equal(whole(grown[world], head, "centers"), alone)
        assert torch.equal(whole(grown[world], head, "momentum"), whole(grown[1], head, "momentum"))
        told = [rank[head]["grown"] for rank in grown[world]]
        assert all(each == told[0] for each in told)
        alone_told = grown[1][0][head]["grown"]
        assert told[0]["length"] == alone_told["length"]
        assert told[0]["own_angle"] == pytest.approx(alone_told["own_angle"], rel=1e-12)


@pytest.mark.parametrize("head", list(HEADS))
def test_who_joins_starts_at_the_mean_of_the_images(
    head: str, folder: Path, data: Path, grown: dict[int, Ranks]
) -> None:
    """Computed plainly: decode, embed one by one, divide by the length, add, divide by the length."""
    found = whole(grown[2], head, "centers")
    backbone = load_backbone(folder / head, torch.device("cpu")).module.eval()
    length = math.exp(float(found[STAYS].double().norm(dim=1).log().mean()))
    with RecordReader(data) as reader, torch.no_grad():
        of_each = [[place for place in range(len(reader)) if reader[place].identity == who] for who in JOINS]
        for who, places in zip(JOINS, of_each, strict=True):
            count = min(PER_IDENTITY, len(places))
            chosen = [places[number * len(places) // count] for number in range(count)]
            units = [normalize(backbone(images_of(reader, [place])).double()) for place in chosen]
            expected = normalize(torch.cat(units).sum(dim=0), dim=0) * length
            assert (found[who] - expected).norm() < 1e-5 * length
    assert [len(places) for places in of_each] == [3, 9, 4, 1]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("head", list(HEADS))
def test_the_first_forward(
    head: str, world: int, folder: Path, data: Path, grown: dict[int, Ranks], old: Ranks
) -> None:
    """Angles of who stays are those of the old run; who joins is far nearer to the own center than by chance."""
    backbone = load_backbone(folder / head, torch.device("cpu")).module.eval()
    centers = normalize(whole(old, head, "centers").double())
    with RecordReader(data) as reader, torch.no_grad():
        places = [place for place in range(len(reader)) if reader[place].identity in STAYS]
        numbers = [OLD.index(NEW[reader[place].identity]) for place in places]
        embeddings = normalize(backbone(images_of(reader, places)).double())
    angles = (embeddings * centers[numbers]).sum(dim=1).acos()
    for rank in grown[world]:
        assert rank[head]["stays"] == pytest.approx(float(angles.mean()), abs=1e-5)
        assert rank[head]["joins"] < 0.6, "radians; at random it would be half of pi"


def test_what_is_told(grown: dict[int, Ranks], folder: Path) -> None:
    first, second = (rank["sface"] for rank in grown[2])
    told = first["grown"]
    assert told["folder"] == str(folder / "sface" / "checkpoints" / "step_00000009")
    assert [told[key] for key in ("step", "kept", "new", "left", "vacant", "unusable")] == [9, 8, 4, 2, 0, 0]
    assert "8 identities stay, 4 are new, 2 leave; 20 images to embed" in first["lines"][0]
    assert "8 identities kept, 4 new (at the mean of at most 4 images each), 2 left; momentum kept" in first["lines"][1]
    assert second["grown"] == told


def test_without_momentum_and_at_random(folder: Path, data: Path, old: Ranks) -> None:
    growth = {"momentum": "empty", "new_centers": "random"}
    rank = alone(folder, data, growth)
    for head in HEADS:
        found = rank[head]
        before = whole(old, head, "centers")
        torch.testing.assert_close(found["centers"][STAYS], before[WERE], rtol=1e-6, atol=1e-8)
        assert not found["momentum"].any()
        assert found["optimizer"] == {}
        norms = found["centers"][JOINS].norm(dim=1)
        assert (norms < 0.1).all(), "short, as in any new run"
        assert found["joins"] > 1.0


def test_the_optimizer_of_the_backbone(grown: dict[int, Ranks], folder: Path) -> None:
    state = grown[1][0]["sface"]["optimizer"]
    assert state and all(each["momentum_buffer"].norm() > 0 for each in state.values())
    assert config_for(folder, folder, "sface").growth is None
