"""The benchmark's centers and embeddings have the geometry they claim."""

import math
import sys

import pytest
import torch

from partial_fc import PartialFC, SFace
from trainer.bench.geometry import BLOCK, POSITIVE_ANGLE, Geometry, effective_dimension
from trainer.bench.peak_memory import peak_bytes, reset_peak
from trainer.bench.plain_head import PlainSFaceHead

pytestmark = pytest.mark.unit


def filled(geometry: Geometry, rows: int, embedding_dim: int, first_class: int = 0) -> torch.Tensor:
    centers = torch.empty(rows, embedding_dim)
    geometry.fill_centers(centers, first_class)
    return centers


@pytest.mark.parametrize(("spread", "dimension"), [(0.06, 278), (0.10, 100), (0.01, 512)])
def test_spread_of_negatives_and_angle_of_positives(spread: float, dimension: int) -> None:
    assert effective_dimension(spread, 512) == dimension
    geometry = Geometry(512, spread, seed=0)
    generator = torch.Generator().manual_seed(0)
    centers = filled(geometry, 3001, 512)
    assert centers.norm(dim=1).mean().item() == pytest.approx(1.0, abs=0.01)
    identities = torch.randint(3001, (65,), generator=generator)
    embeddings = geometry.embeddings(centers[identities], generator)
    cosines = embeddings @ torch.nn.functional.normalize(centers).T
    own = cosines[torch.arange(65), identities]
    assert torch.arccos(own).mean().item() == pytest.approx(POSITIVE_ANGLE, abs=1e-3)
    others = cosines.scatter(1, identities[:, None], 0.0)
    assert others.std().item() == pytest.approx(1 / math.sqrt(dimension), rel=0.1)


@pytest.mark.parametrize(("embedding_dim", "spread"), [(512, 0.06), (7, 0.3), (2, 0.06)])
def test_all_active_leaves_no_pair_out_and_still_varies(embedding_dim: int, spread: float) -> None:
    geometry = Geometry(embedding_dim, spread, seed=3, all_active=True)
    centers = filled(geometry, 1501, embedding_dim)
    embeddings = geometry.embeddings(centers[:33], torch.Generator().manual_seed(1))
    cosines = embeddings @ torch.nn.functional.normalize(centers).T
    assert cosines.min().item() > 0.5999
    assert len(torch.unique(embeddings.round(decimals=4), dim=0)) >= min(33, 2 ** (embedding_dim - 1))


def test_a_center_depends_on_seed_and_global_class_alone() -> None:
    whole = filled(Geometry(6, 0.5, seed=1), BLOCK + 45, 6)
    part = filled(Geometry(6, 0.5, seed=1), 31, 6, first_class=BLOCK - 11)
    torch.testing.assert_close(part, whole[BLOCK - 11 : BLOCK + 20])
    assert not torch.allclose(filled(Geometry(6, 0.5, seed=2), 31, 6), whole[:31])
    assert not torch.allclose(whole[:45], whole[BLOCK:]), "blocks repeat each other"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_centers_are_drawn_without_a_second_copy() -> None:
    geometry = Geometry(256, 0.1, seed=0)
    centers = torch.ones(6 * BLOCK, 256)
    reset_peak()
    before = peak_bytes()
    geometry.fill_centers(centers, 0)
    assert peak_bytes() - before < centers.nbytes / 2


def test_the_plain_head_computes_the_same_loss() -> None:
    # As exact as the head can be: what it leaves out within its tolerance is not what is compared here.
    head = PartialFC(37, 8, tolerance=0.0, seed=1)
    plain = PlainSFaceHead(head.centers.detach().clone(), SFace())
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(11, 8, generator=generator)
    identities = torch.randint(37, (11,), generator=generator)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss, plain_loss = head(ours, identities), plain(theirs, identities)
    loss.backward()
    plain_loss.backward()
    torch.testing.assert_close(loss, plain_loss)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head.center_gradient(), plain.centers.grad, rtol=1e-4, atol=1e-3)
