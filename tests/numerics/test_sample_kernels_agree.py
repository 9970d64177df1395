"""Functions on a batch and its sample: compiled against plain PyTorch; and both libraries' products against float64."""

import pytest
import torch

from partial_fc import SFace, products, sample_kernels_native, sample_kernels_torch
from partial_fc.kernels import sample_kernels_for
from partial_fc.pages import prefer_huge_pages, return_pages

pytestmark = pytest.mark.numerics

SAMPLED, BATCH, DIM = 203, 21, 37
BOTH = (sample_kernels_native, sample_kernels_torch)


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(drawn(*shape, seed=seed))


def test_the_compiled_ones_are_taken_where_they_can_be() -> None:
    assert sample_kernels_for(drawn(3, 4)) is sample_kernels_native
    assert sample_kernels_for(drawn(3, 4).T) is sample_kernels_torch
    assert sample_kernels_for(drawn(3, 4).double()) is sample_kernels_torch


def test_code_batch_and_its_bound() -> None:
    rows = unit(BATCH, DIM, seed=2)
    rows[4] = 0.0
    found = []
    for kernels in BOTH:
        codes, scales, residuals = torch.full((32, 40), 9, dtype=torch.int8), torch.ones(32), torch.ones(32)
        kernels.code_batch(rows, codes, scales, residuals)
        rest = rows.double() - scales[:BATCH, None].double() * codes[:BATCH, :DIM].double()
        assert (rest.norm(dim=1) <= residuals[:BATCH].double()).all()
        assert residuals[:BATCH].max() < 0.02
        assert (residuals[BATCH:] == sample_kernels_torch.PADDING).all()
        assert not codes[:, DIM:].any() and not codes[BATCH:].any() and not codes[4].any()
        found.append((codes.int(), scales))
    assert (found[0][0] - found[1][0]).abs().max() <= 1, "a value half way between two codes may go either way"
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("sampled", [SAMPLED, 1, 0])
def test_drop_forces(sampled: int) -> None:
    centers, embeddings = unit(sampled, DIM, seed=3), unit(BATCH, DIM, seed=4)
    dropped = drawn(sampled, BATCH, seed=5).abs()
    weights, sample_weights = drawn(sampled, seed=6).abs(), drawn(BATCH, seed=7).abs()
    parts = dropped.T @ centers, dropped.T @ dropped, dropped @ embeddings
    below = torch.tensor(1.25, dtype=torch.float64)
    native, plain = (
        kernels.drop_forces(dropped, *parts, centers, embeddings, weights, sample_weights, below) for kernels in BOTH
    )
    assert native.dtype == plain.dtype == torch.float64
    torch.testing.assert_close(native, plain, rtol=1e-5, atol=2e-4)  # of one center, chance cancels to 0
    # The definition, pair by pair.
    d, u, w = dropped.double(), centers.double(), sample_weights.double().square()
    lean = (u @ u.T)[None] - (embeddings.double() @ u.T)[:, :, None] * (embeddings.double() @ u.T)[:, None, :]
    together = d.T[:, :, None] * d.T[:, None, :]
    coherent = (w * (together * lean).sum(dim=(1, 2))).sum() - below
    mass = (w * (d.sum(dim=0).square() - d.square().sum(dim=0))).sum()
    torch.testing.assert_close(native[:2], torch.stack([coherent, mass]), rtol=1e-5, atol=1e-5)


def test_own_forces() -> None:
    centers, embeddings = unit(5, DIM, seed=8), unit(BATCH, DIM, seed=9)
    samples = torch.tensor([3, 0, 20, 20, 7])
    embeddings[0] = centers[1]
    centers[2] = 0.0
    native, plain = (
        kernels.own_forces(centers, drawn(5).abs(), samples, embeddings, drawn(BATCH).abs(), SFace())
        for kernels in BOTH
    )
    torch.testing.assert_close(native, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by_onednn", [True, False])
@pytest.mark.parametrize("sizes", [(203, 37, 21), (1, 5, 1), (4, 0, 3), (0, 4, 3)])
def test_products(sizes: tuple[int, int, int], by_onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_is_faster", lambda: by_onednn)
    m, k, n = sizes
    pairs = [
        (drawn(m, k, seed=1), drawn(k, n, seed=2)),
        (drawn(k, m, seed=1).T, drawn(k, n, seed=2)),
        (drawn(m, k, seed=1), drawn(n, k, seed=2).T),
    ]
    for left, right in pairs:
        truth = left.double() @ right.double()
        out = torch.full((m, n), torch.nan)
        assert products.product(left, right, out) is out
        torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-5)
        total = torch.ones(m, n)
        products.add_product(total, left, right, -0.5)
        torch.testing.assert_close(total.double(), 1.0 - 0.5 * truth, rtol=1e-5, atol=1e-5)


def test_advice_about_pages_changes_no_number() -> None:
    large = torch.full((20 << 20,), 3.0)
    assert prefer_huge_pages(large) is large
    assert torch.equal(large, torch.full_like(large, 3.0))
    return_pages(large[10 << 20 :])
    assert torch.equal(large[: 10 << 20], torch.full((10 << 20,), 3.0))
    assert float(prefer_huge_pages(torch.ones(1))) == 1.0
