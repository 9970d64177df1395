"""The K best by tiles are the K best of all; blocks and shares."""

import numpy as np
import pytest
import torch

from trainer.evaluation.row_blocks import LARGEST_BLOCK, equal_shares, row_blocks
from trainer.evaluation.tiled_top_k import RunningTopK, TileScores, merge_top_k

pytestmark = pytest.mark.unit


def by_tiles(scores, k, tile):
    best = RunningTopK(len(scores), k, torch.device("cpu"))
    for first in range(0, scores.shape[1], tile):
        best.add(scores[:, first : first + tile], first)
    return best


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("tile", [1, 7, 64, 1000])
@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_equals_sorting_everything(k, tile, order):
    scores = torch.randn(17, 300, generator=torch.Generator().manual_seed(k + tile))
    if order != "random":
        scores = scores.sort(dim=1, descending=order == "falling")[0]
    best = by_tiles(scores, k, tile)
    values, places = scores.sort(dim=1, descending=True)
    assert torch.equal(best.scores, values[:, :k])
    assert torch.equal(best.places, places[:, :k])


def test_fewer_rows_than_kept():
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    best = by_tiles(scores, 5, 2)
    assert torch.equal(best.scores[:, :3], scores.sort(dim=1, descending=True)[0])
    assert (best.scores[:, 3:] == -torch.inf).all()
    assert (best.places[:, 3:] == -1).all()


def test_of_equal_scores_the_first_stays_ahead():
    best = by_tiles(torch.tensor([[0.5, 0.5, 0.7, 0.5, 0.5]]), 3, 1)
    assert best.places.tolist() == [[2, 0, 1]]


def test_parts_of_a_gallery_are_merged():
    scores = torch.randn(9, 100, generator=torch.Generator().manual_seed(4))
    parts = []
    for start, stop in ((0, 13), (13, 14), (14, 100)):
        best = by_tiles(scores[:, start:stop], 6, 10)
        parts.append((best.scores, torch.where(best.places < 0, -1, best.places + start)))
    values, places = merge_top_k(parts, 6)
    assert torch.equal(values, scores.sort(dim=1, descending=True)[0][:, :6])
    assert torch.equal(places, scores.sort(dim=1, descending=True)[1][:, :6])


def test_tiles_share_one_buffer():
    scores_of = TileScores(torch.device("cpu"))
    probes, gallery = torch.randn(5, 8), torch.randn(11, 8)
    first = scores_of(probes, gallery)
    assert torch.allclose(first, probes @ gallery.T)
    assert scores_of(probes[:2], gallery[:3]).data_ptr() == first.data_ptr()


@pytest.mark.parametrize("total", [0, 1, 5, 64, 65, 1000, 30_000])
@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_blocks_hold_every_row_once_at_any_number_of_ranks(total, multiple):
    sizes = set()
    for world_size in (1, 2, 3, 7):
        blocks = row_blocks(total, world_size, multiple=multiple)
        sizes.add(blocks.size)
        assert blocks.size % multiple == 0
        assert blocks.size <= max(LARGEST_BLOCK, multiple)
        rows = [row for rank in range(world_size) for row in blocks.rows_of(rank)]
        assert rows == list(range(total))
        for number in range(blocks.count):
            assert set(blocks.block(number)) <= set(blocks.rows_of(blocks.owner(number)))
    assert len(sizes) == 1, "the blocks do not depend on the number of ranks"


def test_ranks_get_equal_shares_of_the_images():
    assert equal_shares([1, 1, 1, 1], 2) == (0, 2, 4)
    assert equal_shares([10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 2) == (0, 1, 11)
    assert equal_shares([], 3) == (0, 0, 0, 0)
    images = np.random.default_rng(0).integers(1, 40, 10_000)
    blocks = row_blocks(len(images), 4, images=images)
    shares = [images[blocks.rows_of(rank).start : blocks.rows_of(rank).stop].sum() for rank in range(4)]
    assert max(shares) - min(shares) <= 2 * blocks.size * 40
