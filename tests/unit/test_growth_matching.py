"""Who is who in two data sets, which images are embedded, and where the rows of a chunk go."""

from pathlib import Path

import numpy as np
import pytest
import torch
from growing import write_people
from torch import nn

from data_pipeline import RecordReader
from data_pipeline.identity_names import IdentityNames
from trainer.config import DataConfig
from trainer.errors import ConfigError
from trainer.growth.grown import Grown
from trainer.growth.matching import Matching, match
from trainer.growth.mean_embeddings import ImageEmbedder
from trainer.growth.row_exchange import Renumbering
from trainer.growth_config import GrowthConfig
from trainer.world import World

pytestmark = pytest.mark.unit

ALONE = World(0, 1, 0, torch.device("cpu"))


def named(*names: str) -> IdentityNames:
    return IdentityNames.of(range(len(names)), [name.encode() for name in names], "a test")


Names = IdentityNames | None


def matched(old: Names, new: Names, identities: list[int], *, num_old: int, num_new: int, per: int = 2) -> Matching:
    return match(
        old, new, num_old=num_old, num_new=num_new, identities=np.array(identities), images_per_identity=per, sample=3
    )  # fmt: skip


def test_by_name() -> None:
    found = matched(
        named("ann", "bob", "Zoë"),
        named("dan", "Zoë", "eve", "ann"),
        [0, 1, 1, 3, 0, 0, 0, 2, -1],
        num_old=3,
        num_new=4,
    )
    assert found.source.tolist() == [-1, 2, -1, 0]
    assert (found.kept, found.new, found.left, found.vacant) == (2, 2, 1, 0)
    assert found.images.tolist() == [0, 5, 7], "of four images of dan the first and the third"
    assert found.whose.tolist() == [0, 0, 2]
    assert found.sample_images.tolist() == [1, 3]
    assert found.sample_whose.tolist() == [1, 3]


def test_a_number_is_a_name() -> None:
    by_number = matched(None, None, [0, 4, 4], num_old=3, num_new=5)
    assert by_number.source.tolist() == [0, 1, 2, -1, -1]
    assert (by_number.left, by_number.vacant, by_number.whose.tolist()) == (0, 1, [4, 4])
    assert matched(None, None, [0], num_old=7, num_new=5).left == 2
    mixed = matched(None, named("ann", "2", "02"), [0, 1, 2], num_old=4, num_new=3)
    assert mixed.source.tolist() == [-1, 2, -1]


def test_nobody_stays() -> None:
    with pytest.raises(
        ConfigError, match=r"no identity of the data set .* names like 'x' \(a test\).* goes by numbers"
    ):
        matched(None, named("x"), [0], num_old=4, num_new=1)


def test_images_are_spread_over_those_there_are() -> None:
    identities = [0] * 10 + [1] * 3 + [2]
    found = matched(named("old"), named("a", "b", "c", "old"), [*identities, 3], num_old=1, num_new=4, per=4)
    assert found.images.tolist() == [0, 2, 5, 7, 10, 11, 12, 13]
    none = matched(named("old"), named("a", "b", "c", "old"), [*identities, 3], num_old=1, num_new=4, per=0)
    assert not len(none.images)


def test_rows_of_a_block_get_their_numbers() -> None:
    renumbering = Renumbering.inverse(torch.tensor([4, -1, 0]), 5)
    assert renumbering.number_now.tolist() == [2, -1, -1, -1, 0]
    classes, rows = renumbering.apply(torch.tensor([0, 1, -1, 4]), {"x": torch.tensor([10, 11, 12, 14])})
    assert (classes.tolist(), rows["x"].tolist()) == ([2, 0], [10, 14])
    with pytest.raises(ConfigError, match="rows of class 5"):
        renumbering.apply(torch.tensor([5]), {"x": torch.tensor([1])})


class Diverged(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 4), float("nan"))


def test_a_backbone_that_has_diverged(small: RecordReader) -> None:
    data = DataConfig(records="unused", image_size=32, decoder="cpu")
    embedder = ImageEmbedder(Diverged(), small, data, embedding_dim=4, batch_size=2, world=ALONE)
    with pytest.raises(ConfigError, match="not finite: it has diverged"):
        list(embedder.mean_directions(torch.tensor([0, 1]), torch.tensor([0, 0])))


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> RecordReader:
    return RecordReader(write_people(tmp_path_factory.mktemp("few") / "data", ["ann", "dan"]))


def told(own: float | None, other: float | None) -> list[str]:
    counts = {"step": 3, "kept": 7, "new": 2, "left": 1, "vacant": 1, "unusable": 0}
    grown = Grown(folder=Path("old"), **counts, length=0.5, own_angle=own, other_angle=other)
    return grown.lines(GrowthConfig.model_validate({"from": "old"}))


def test_people_who_do_not_look_like_their_centers() -> None:
    fine, wrong = told(1.0, 1.5), told(1.56, 1.57)
    assert len(fine) == 1
    assert (
        "7 identities kept, 2 new (at the mean of at most 8 images each, 1 without a usable one at random), 1 left"
        in fine[0]
    )
    assert "images of kept ones lie 57.3° from their centers, 85.9° from others'" in fine[0]
    assert wrong[1].startswith("warning: images of kept identities lie 89.4° from their old centers and 90.0° from")
    assert len(told(None, None)) == 1
