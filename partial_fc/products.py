"""Float32 matrix products by the faster of the two libraries that PyTorch brings for a CPU.

``torch.mm`` calls MKL, which on AMD's processors computes with half the width of their registers; oneDNN, for which
PyTorch has an operator, takes half of its time there (AMD EPYC, AVX-512). Both sum float32 numbers in float32; a row of
oneDNN's product does not depend on how many others there are. But oneDNN adds up all terms of a sum one after another,
and errs 2.6 times as much as MKL, which takes them in groups (512 terms, unit rows). In groups of ``TERMS`` it errs
less than MKL.
Shape letters: m, k, n of a product [m, k] x [k, n].
"""

import functools

import torch
from torch import Tensor

TERMS = 128  # of a sum that are added up one after the other


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
    total: Tensor | None = None
    for start in range(0, left.shape[1], TERMS):
        terms = left[:, start : start + TERMS], right[start : start + TERMS].T
        found: Tensor = torch.ops.mkldnn._linear_pointwise(*terms, None, "none", [], "")
        total = found if total is None else total.add_(found)
    assert total is not None, "a sum has terms"
    return total


def _is_for_onednn(left: Tensor, right: Tensor) -> bool:
    plain = left.device.type == "cpu" and left.dtype == torch.float32 and left.numel() > 0 and right.numel() > 0
    return plain and _is_faster()


@functools.cache
def _is_faster() -> bool:
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
