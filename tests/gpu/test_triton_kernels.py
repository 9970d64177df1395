"""The Triton kernels against PyTorch's on the CPU."""

from dataclasses import replace

import pytest
import torch
from kernel_agreement import Agreement, AgreementTests
from triton_here import DEVICE, MARKS, of_cuda_alone

from partial_fc import kernels, kernels_triton

pytestmark = MARKS

AGREEMENT = Agreement(kernels_triton, DEVICE)


@of_cuda_alone
def test_cuda_gets_them() -> None:
    assert kernels.kernels_for(torch.device("cuda")) is kernels_triton


class TestTritonKernels(AgreementTests):
    agreement = AGREEMENT


class TestTritonKernelsOnBfloat16(AgreementTests):
    agreement = replace(AGREEMENT, dtype=torch.bfloat16)


def test_candidates_that_do_not_fit_get_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_triton, "LEAST_ROOM", 8)
    AGREEMENT.of_screening(-2.0, 0.0)
