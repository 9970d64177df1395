"""The benchmark's centers and embeddings have the geometry they claim."""

import math

import pytest
import torch

from partial_fc import PartialFC, SFace
from trainer.bench.geometry import POSITIVE_ANGLE, draw_centers, draw_embeddings, effective_dimension
from trainer.bench.plain_head import PlainSFaceHead

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("spread", "dimension"), [(0.06, 278), (0.10, 100), (0.01, 512)])
def test_spread_of_negatives_and_angle_of_positives(spread: float, dimension: int) -> None:
    assert effective_dimension(spread, 512) == dimension
    generator = torch.Generator().manual_seed(0)
    centers = draw_centers(3001, 512, dimension, generator)
    identities = torch.randint(3001, (65,), generator=generator)
    embeddings = draw_embeddings(centers, identities, generator)
    cosines = embeddings @ torch.nn.functional.normalize(centers).T
    own = cosines[torch.arange(65), identities]
    assert torch.arccos(own).mean().item() == pytest.approx(POSITIVE_ANGLE, abs=1e-3)
    others = cosines.scatter(1, identities[:, None], 0.0)
    assert others.std().item() == pytest.approx(1 / math.sqrt(dimension), rel=0.1)


def test_the_plain_head_computes_the_same_loss() -> None:
    head = PartialFC(37, 8, seed=1)
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
