"""Float32 matrix products by the faster of the two libraries that PyTorch brings for a CPU.

``torch.mm`` calls MKL, which on AMD's processors computes with half the width of their registers; oneDNN, for which
PyTorch has an operator, takes 0.4 to 0.55 of its time there (AMD EPYC, AVX-512). Both sum float32 numbers in float32; a
row of oneDNN's product does not depend on how many others there are.
Shape letters: m, k, n of a product [m, k] x [k, n].
"""

import functools

import torch
from torch import Tensor


def product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """``out`` [m, n] becomes left [m, k] x right [k, n]."""
    if _is_for_onednn(left, right):
        return out.copy_(_by_onednn(left, right))
    return torch.mm(left, right, out=out)


def add_product(total: Tensor, left: Tensor, right: Tensor, factor: float = 1.0) -> Tensor:
    """Add factor * left [m, k] x right [k, n] to ``total`` [m, n]."""
    if _is_for_onednn(left, right):
        return total.add_(_by_onednn(left, right), alpha=factor)
    return total.addmm_(left, right, alpha=factor)


def _by_onednn(left: Tensor, right: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
    return found


def _is_for_onednn(left: Tensor, right: Tensor) -> bool:
    plain = left.device.type == "cpu" and left.dtype == torch.float32 and left.numel() > 0 and right.numel() > 0
    return plain and _is_faster()


@functools.cache
def _is_faster() -> bool:
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
