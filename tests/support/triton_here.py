"""For tests of Triton programs: where they run. Import it before what needs Triton: without that a module is skipped.

On a GPU; without one, if TRITON_INTERPRET=1, in Triton's interpreter on the CPU (after pip install triton):
TRITON_INTERPRET=1 .venv/bin/python -m pytest tests/gpu -k "triton or split or host_rows or host_memory_screened"
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not torch.cuda.is_available() and not INTERPRETED:
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton")

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
MARKS = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),  # in Triton's interpreter
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
of_cuda_alone = pytest.mark.skipif(INTERPRETED, reason="asks what CUDA gets")


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
