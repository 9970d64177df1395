"""How fast the head is, against the bare float32 product of all centers with the batch on the same device.

Shape letters: N global batch, R this rank's classes, D embedding size, T rows of a tile.
"""

import math
import time
from collections.abc import Callable

import torch

TILE_ROWS = 4096
REPETITIONS = 3


def bare_flops(
    rows: int, dim: int, batch: int, device: torch.device, *, now: Callable[[], float] = time.perf_counter
) -> float:
    """FLOP/s of torch.mm of [T, D] with [D, N] in float32, the best of a few; NaN where nothing is to be multiplied."""
    if min(rows, dim, batch) < 1:
        return math.nan
    centers = torch.zeros(min(rows, TILE_ROWS), dim, device=device)
    samples = torch.zeros(dim, batch, device=device)
    out = torch.empty(len(centers), batch, device=device)
    shortest = math.inf
    for _ in range(1 + REPETITIONS):  # the first meets cold caches, and libraries that load
        _finish(device)
        began = now()
        torch.mm(centers, samples, out=out)
        _finish(device)
        shortest = min(shortest, now() - began)
    return product_flop(len(centers), dim, batch) / max(shortest, 1e-9)


def product_flop(rows: int, dim: int, batch: int) -> float:
    """Floating-point operations of the product of R centers with N embeddings: 2 N R D."""
    return 2.0 * rows * dim * batch


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
