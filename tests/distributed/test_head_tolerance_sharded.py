"""The error of the sharded head under its tolerance, at world sizes 2 to 4; and centers that change world size."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from face_geometry import COLLAPSE, STEADY
from gang import run_gang
from head_accuracy import DenseTwin, Found, check_step, dense_truth, expect_dense, expect_screened, together
from head_accuracy_on_ranks import (
    CASES,
    WRITERS,
    all_rows,
    everything_on_one_rank,
    global_batches,
    go_on_from_pieces,
    settings_of,
)

from partial_fc import SFace

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


@pytest.fixture(scope="module")
def of_writers(folder: Path) -> list[list[dict[str, Any]]]:
    """What the ranks returned that also left the pieces in ``folder``."""
    return run_gang(WRITERS, everything_on_one_rank, folder, folder=folder / "gang")


def test_three_ranks(of_writers: list[list[dict[str, Any]]]) -> None:
    check_all_cases(of_writers)


@pytest.mark.parametrize("world_size", [2, 4])
def test_two_and_four_ranks_after_reading_what_three_wrote(
    world_size: int, folder: Path, of_writers: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    """The centers and momentum of three ranks, many at rest, go on by two and by four as torch.optim.SGD's do."""
    check_all_cases(run_gang(world_size, everything_on_one_rank, folder, folder=tmp_path))


def test_one_rank_reads_what_three_wrote(folder: Path, of_writers: list[list[dict[str, Any]]]) -> None:
    go_on_from_pieces(0, 1, folder)


def check_all_cases(ranks: list[list[dict[str, Any]]]) -> None:
    for index, (phase, tolerance) in enumerate(CASES):
        runs = [rank[index] for rank in ranks]
        centers, batches = global_batches(phase, len(ranks))
        twin = DenseTwin.of(centers, settings_of(phase))
        for step, (embeddings, identities, _) in enumerate(batches):
            where = (len(ranks), phase.name, tolerance, step)
            seen = [asdict(run["stats"][step]) | {"bytes_moved": 0, "loss": run["losses"][step]} for run in runs]
            assert all(each == seen[0] for each in seen), (where, seen)
            stats = runs[0]["stats"][step]
            found = Found(
                runs[0]["losses"][step],
                together([run["embedding_gradients"][step] for run in runs]),
                all_rows([run["center_gradients"][step] for run in runs], [run["first_row"] for run in runs]),
                stats,
            )
            truth = dense_truth(embeddings, identities, twin.now, SFace())
            check_step(found, truth, tolerance, where)
            twin.step(found.center_gradient)
            if phase is STEADY and tolerance == 1e-3:
                expect_screened(stats, where)
            if phase is COLLAPSE:
                expect_dense(stats, where)
        off = (together([run["centers"] for run in runs]).double() - twin.now).norm(dim=1) / twin.now.norm(dim=1)
        assert torch.all(off < 2e-6), (len(ranks), phase.name, tolerance, off.max())
