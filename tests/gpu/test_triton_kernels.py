"""The Triton kernels against PyTorch's on the CPU. Without a GPU, Triton's interpreter runs them instead.

TRITON_INTERPRET=1 .venv/bin/python -m pytest tests/gpu/test_triton_kernels.py      (after pip install triton)
"""

import os
from dataclasses import replace

import pytest
import torch
from kernel_agreement import Agreement, AgreementTests

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


class TestTritonKernels(AgreementTests):
    agreement = AGREEMENT


class TestTritonKernelsOnBfloat16(AgreementTests):
    agreement = replace(AGREEMENT, dtype=torch.bfloat16)


def test_candidates_that_do_not_fit_get_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_triton, "LEAST_ROOM", 8)
    AGREEMENT.of_screening(-2.0, 0.0)
