"""scale_gradient alone: the same values forward, a multiple of the gradient backward."""

import math

import pytest
import torch

from partial_fc import PartialFC, scale_gradient

pytestmark = pytest.mark.unit


def test_identity_forward_and_factor_backward() -> None:
    embeddings = torch.tensor([[1.5, -2.0, 0.0]], requires_grad=True)
    scaled = scale_gradient(embeddings, 3.0)
    assert torch.equal(scaled, embeddings)
    scaled.backward(torch.tensor([[1.0, -4.0, 0.5]]))  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert embeddings.grad.tolist() == [[3.0, -12.0, 1.5]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [0, 5])
def test_keeps_shape_and_type(dtype: torch.dtype, rows: int) -> None:
    embeddings = torch.ones(rows, 4, dtype=dtype, requires_grad=True)
    scaled = scale_gradient(embeddings, 8)
    scaled.sum().backward()  # type: ignore[no-untyped-call]
    assert (scaled.shape, scaled.dtype) == (embeddings.shape, dtype)
    assert embeddings.grad is not None
    assert embeddings.grad.dtype == dtype
    assert bool((embeddings.grad == 8).all())


def test_the_centers_gradient_is_not_scaled() -> None:
    found = []
    for factor in (1.0, 4.0):
        head = PartialFC(5, 3)
        embeddings = torch.eye(3).requires_grad_()
        head(scale_gradient(embeddings, factor), torch.arange(3)).backward()
        center_gradient = head.center_gradient()
        assert embeddings.grad is not None
        assert center_gradient is not None
        found.append((embeddings.grad, center_gradient))
    (plain, centers), (scaled, centers_of_scaled) = found
    assert plain.any()
    assert torch.equal(scaled, plain * 4.0)
    assert torch.equal(centers_of_scaled, centers)


def test_nothing_to_scale_without_gradient() -> None:
    assert not scale_gradient(torch.ones(2, 3), 2.0).requires_grad


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_refuses_other_factors(factor: float) -> None:
    with pytest.raises(ValueError, match="factor must be positive and finite"):
        scale_gradient(torch.ones(1, 2), factor)
