"""Comparisons on several ranks give the numbers of one, bit for bit; and those of plain NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gang import run_gang

from trainer.evaluation.bootstrap import share_interval
from trainer.evaluation.distractors import count_hits, score_distractors
from trainer.evaluation.replicates import BootstrapSettings, intervals_on_ranks
from trainer.evaluation.row_blocks import row_blocks
from trainer.evaluation.search import search
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.world import World

pytestmark = pytest.mark.distributed

PROBES, GALLERY, DIM, K = 403, 977, 24, 7
SIZES = (1, 10, 300, 900)


def unit_rows(seed: int, rows: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed)))


def listed_pairs() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    return generator.integers(0, GALLERY, 2500), generator.integers(0, GALLERY, 2500)


def identities() -> np.ndarray:
    return np.sort(np.random.default_rng(6).integers(0, 60, PROBES))


def everything(rank: int, world_size: int) -> dict[str, Any] | None:
    world = World(rank, world_size, rank, torch.device("cpu"))

    def split(rows: torch.Tensor) -> ShardedRows:
        blocks = row_blocks(len(rows), world_size)
        mine = blocks.rows_of(rank)
        return ShardedRows(blocks, rows[mine.start : mine.stop].clone(), world)

    probes, gallery = split(unit_rows(1, PROBES)), split(unit_rows(2, GALLERY))
    few = split(unit_rows(3, 1))  # ranks without a row
    found = {
        "search": search(probes, gallery, K, device=world.device),
        "search of one": search(few, gallery.choose(np.array([5, 3])), K, device=world.device),
        "pairs": gallery.score_pairs(*listed_pairs()),
        "chosen": gallery.choose(np.array([976, 0, 500, 500, 3])).on_first_rank(),
        "distractors": score_distractors(probes, gallery, SIZES, 10, device=world.device),
        "intervals": intervals_on_ranks(
            BootstrapSettings(replicates=25, seed=3), lambda number: {"x": float(number * 7 % 25)}, world
        ),
    }
    return found if rank == 0 else {key: value for key, value in found.items() if value}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    results = {}
    for world_size in (1, 2, 3):
        first, *others = run_gang(world_size, everything, folder=folder / str(world_size))
        assert not any(others), "rank 0 alone has results"
        results[world_size] = first
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_equal_to_one_rank_bit_for_bit(found: dict[int, dict[str, Any]], world_size: int) -> None:
    one, many = found[1], found[world_size]
    for key in ("search", "search of one"):
        np.testing.assert_array_equal(many[key].scores, one[key].scores)
        np.testing.assert_array_equal(many[key].rows, one[key].rows)
    np.testing.assert_array_equal(many["pairs"], one["pairs"])
    assert torch.equal(many["chosen"], one["chosen"])
    np.testing.assert_array_equal(many["distractors"].best, one["distractors"].best)
    assert torch.equal(many["distractors"].histogram.counts, one["distractors"].histogram.counts)
    assert many["intervals"] == one["intervals"]


def test_search_is_sorting_all_scores(found: dict[int, dict[str, Any]]) -> None:
    scores = (unit_rows(1, PROBES).double() @ unit_rows(2, GALLERY).double().T).numpy()
    expected = np.sort(scores, axis=1)[:, ::-1][:, :K]
    np.testing.assert_allclose(found[1]["search"].scores, expected, atol=1e-6)
    rows = found[1]["search"].rows
    np.testing.assert_allclose(np.take_along_axis(scores, rows, 1), expected, atol=1e-6)
    assert found[1]["search of one"].rows[0, 2:].tolist() == [-1] * (K - 2)


def test_pairs_and_choice(found: dict[int, dict[str, Any]]) -> None:
    rows, (first, second) = unit_rows(2, GALLERY).double().numpy(), listed_pairs()
    np.testing.assert_allclose(found[1]["pairs"], np.sum(rows[first] * rows[second], axis=1), atol=1e-7)
    assert torch.equal(found[1]["chosen"], unit_rows(2, GALLERY)[[976, 0, 500, 500, 3]])


def test_megaface_by_counting(found: dict[int, dict[str, Any]]) -> None:
    """Every search written down: the mate and the first n distractors, sorted."""
    probes, distractors = unit_rows(1, PROBES), unit_rows(2, GALLERY)
    whose = identities()
    scores = found[1]["distractors"]
    assert scores.histogram.total == PROBES * SIZES[-1]
    counts = count_hits(probes, whose, scores.best, (1, 10))
    against = (probes.double() @ distractors.double().T).numpy()
    among = (probes.double() @ probes.double().T).numpy()
    hits = np.zeros((len(SIZES), 2), dtype=int)
    searches = 0
    for probe in range(PROBES):
        for mate in np.flatnonzero(whose == whose[probe]):
            if mate == probe:
                continue
            searches += 1
            for place, size in enumerate(SIZES):
                rank = 1 + np.count_nonzero(against[probe, :size] >= among[probe, mate])
                hits[place] += (rank <= 1, rank <= 10)
    assert counts.pairs.sum() == searches
    assert len(counts.genuine) == searches // 2
    np.testing.assert_array_equal(counts.hits.sum(axis=2), hits)
    interval = share_interval(counts.hits[1, 0], counts.pairs, replicates=50, confidence=0.9, seed=0)
    assert interval is not None
    assert interval[0] <= hits[1, 0] / searches <= interval[1]
