"""Quantiles of angles, classes seen and what collectives cost, on one rank and on several."""

import math
from typing import Any

import pytest
import torch
from gang import run_gang

from partial_fc import QUANTILES, ArcFace, CenterSGD, PartialFC, SFace, survey_angles

pytestmark = pytest.mark.distributed

CLASSES, DIM, BATCH = 3001, 32, 64


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.rand(BATCH, 1, generator=generator) * 3.0 + 0.5
    embeddings = torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator)) * lengths
    return embeddings, torch.randint(CLASSES, (BATCH,), generator=generator)


def survey(rank: int, world_size: int) -> dict[str, Any]:
    embeddings, identities = batch()
    cut = BATCH // 3  # unequal batches
    part = slice(None) if world_size == 1 else (slice(0, cut), slice(cut, None))[rank]
    found: dict[str, Any] = {}
    for name, loss in (("sface", SFace()), ("arcface", ArcFace())):
        head = PartialFC(CLASSES, DIM, loss, seed=3)
        optimizer = CenterSGD(head)
        mine = embeddings[part].clone().requires_grad_()
        before = survey_angles(head, mine, identities[part])
        head(mine, identities[part]).backward()
        optimizer.step()
        found[name] = (before, survey_angles(head, mine, identities[part]), head.seen.unseen)
        found[f"{name} use"] = (head.collectives.use.nbytes, head.collectives.use.seconds)
        found[f"{name} centers"] = head.centers.detach().clone()
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("survey")
    return {size: run_gang(size, survey, folder=folder / str(size)) for size in (1, 2)}


@pytest.mark.parametrize("loss", ["sface", "arcface"])
def test_the_same_on_every_rank_and_at_any_number_of_them(loss: str, found: dict[int, list[dict[str, Any]]]) -> None:
    (alone,) = found[1]
    for rank in found[2]:
        for mine, whole in zip(rank[loss][:2], alone[loss][:2], strict=True):
            assert mine.positive == pytest.approx(whole.positive, abs=2e-3)
            assert mine.negative == pytest.approx(whole.negative, abs=2e-3)
            assert mine.embedding_norm == pytest.approx(whole.embedding_norm, rel=1e-9)
    assert sum(rank[loss][2] for rank in found[2]) == alone[loss][2] == CLASSES - len(set(batch()[1].tolist()))


@pytest.mark.parametrize("loss", ["sface", "arcface"])
def test_against_all_angles(loss: str, found: dict[int, list[dict[str, Any]]]) -> None:
    """After a step, when rows are in motion; negatives are a sample, of 600 centers here."""
    after = found[2][0][loss][1]
    centers = torch.cat([rank[f"{loss} centers"] for rank in found[2]])
    embeddings, identities = batch()
    unit = torch.nn.functional.normalize(embeddings.double())
    angles = torch.arccos(unit @ torch.nn.functional.normalize(centers.double()).T)
    own = angles[torch.arange(BATCH), identities]
    assert sum(angle <= after.positive[2] for angle in own.tolist()) == BATCH // 2
    for share, angle in zip(QUANTILES, after.positive, strict=True):
        below = float((own <= angle + math.pi / 4096).double().mean())
        assert abs(below - share) <= 1.5 / BATCH, (share, angle)
    for share, angle in zip(QUANTILES, after.negative, strict=True):
        assert float((angles < angle).double().mean()) == pytest.approx(share, abs=0.02)
    assert after.embedding_norm == pytest.approx(float(embeddings.double().norm(dim=1).mean()), rel=1e-6)


def test_what_collectives_cost(found: dict[int, list[dict[str, Any]]]) -> None:
    nbytes, seconds = found[1][0]["sface use"]
    assert set(nbytes.values()) == {0}
    assert set(seconds.values()) == {0.0}
    for rank in found[2]:
        nbytes, seconds = rank["sface use"]
        largest = BATCH - BATCH // 3
        # Of one step and two surveys: sizes and batch; the reduce-scatter comes once.
        assert nbytes["all_gather"] == 3 * (8 + largest * (4 * DIM + 8))
        assert nbytes["reduce_scatter"] == largest * 4 * DIM
        assert nbytes["all_reduce"] > 2 * 2 * 4096 * 8
        assert all(value > 0.0 for value in seconds.values())


def test_nothing_to_measure() -> None:
    head = PartialFC(1, 8)
    found = survey_angles(head, torch.full((2, 8), math.nan), torch.zeros(2, dtype=torch.int64))
    assert all(math.isnan(value) for value in (*found.positive, *found.negative, found.embedding_norm))
