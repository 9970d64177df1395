"""How class centers start.

Shape letters: R rows of a class shard, D embedding size.
"""

import hashlib
import math

import torch
from torch import Tensor

from partial_fc.class_shard import ClassShard
from partial_fc.pages import prefer_huge_pages

INIT_STD = 0.01  # does not depend on C: the angular step of a center is about lr / |w|^2
INIT_BLOCK = 1024


def initial_centers(
    shard: ClassShard,
    embedding_dim: int,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    pinned: bool = False,
) -> Tensor:
    """[R, D] normal(0, 0.01), drawn in float32; row j depends on (seed, global class id j) alone. pinned: on the CPU.

    Drawn in blocks of 1,024 classes, each from its own generator, so any rank can draw any range; on the CPU, then
    moved to ``device``. The meta device has no numbers, so none are drawn for it.
    """
    if torch.device(device).type == "meta":
        return torch.empty(len(shard), embedding_dim, device=device, dtype=dtype)
    centers = prefer_huge_pages(torch.empty(len(shard), embedding_dim, dtype=dtype, pin_memory=pinned))
    for block in range(shard.start // INIT_BLOCK, math.ceil(shard.stop / INIT_BLOCK)):
        digest = hashlib.blake2b(f"{seed}:{block}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
        rows = torch.empty(INIT_BLOCK, embedding_dim).normal_(0.0, INIT_STD, generator=generator)
        first = block * INIT_BLOCK
        begin, end = max(first, shard.start), min(first + INIT_BLOCK, shard.stop)
        centers[begin - shard.start : end - shard.start] = rows[begin - first : end - first]
    return centers.to(device)
