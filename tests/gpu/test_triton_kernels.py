"""The Triton kernels against PyTorch's on the CPU. Without a GPU, Triton's interpreter runs them instead.

TRITON_INTERPRET=1 .venv/bin/python -m pytest tests/gpu/test_triton_kernels.py      (after pip install triton)
"""

import os

import pytest
import torch
from kernel_agreement import Agreement

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),  # in Triton's interpreter
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not torch.cuda.is_available() and not INTERPRETED:
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton")

from partial_fc import kernels, kernels_triton  # noqa: E402  # both need Triton

AGREEMENT = Agreement(kernels_triton, torch.device("cpu" if INTERPRETED else "cuda"))


@pytest.mark.skipif(INTERPRETED, reason="asks which kernels CUDA gets")
def test_cuda_gets_them() -> None:
    assert kernels.kernels_for(torch.device("cuda")) is kernels_triton


@pytest.mark.parametrize("rows", [None, torch.tensor([200, 7, 8, 9, 3])])
def test_gather_unit(rows: torch.Tensor | None) -> None:
    AGREEMENT.of_gather_unit(rows)


def test_encode_all_and_its_bound() -> None:
    AGREEMENT.of_encode_all()


@pytest.mark.parametrize("with_pairs", [True, False])
def test_update_rows(with_pairs: bool) -> None:
    AGREEMENT.of_update_rows(with_pairs=with_pairs)


def test_update_dense() -> None:
    AGREEMENT.of_update_dense()


@pytest.mark.parametrize("rest", [0.0, 0.9])
def test_settle_rows(rest: float) -> None:
    AGREEMENT.of_settle_rows(rest)


@pytest.mark.parametrize(("lowest", "cut"), [(0.1, 1e-3), (-2.0, 0.0), (2.0, 1e9)])
def test_screening(lowest: float, cut: float) -> None:
    AGREEMENT.of_screening(lowest, cut)


def test_dense_coefficients() -> None:
    AGREEMENT.of_dense_coefficients()


def test_sample_levels() -> None:
    AGREEMENT.of_sample_levels()


def test_candidates_that_do_not_fit_get_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_triton, "LEAST_ROOM", 8)
    AGREEMENT.of_screening(-2.0, 0.0)
