"""Whether a problem fits in memory: asked before it starts, because the kernel's answer is a kill.

Shape letters: R rows of one rank, N global batch, D embedding size.
"""

import torch
import torch.distributed as dist

from partial_fc import class_shard
from trainer.available_memory import available_bytes
from trainer.bench.bare_product import output_bytes
from trainer.bench.problem import PLAIN, PRODUCT, SFACE, Problem
from trainer.world import World

GIB = 1 << 30
_TILE = 8192 * 4 * 8  # bytes per sample of the buffers of one tile


def needed_bytes(problem: Problem, world_size: int) -> int:
    """Upper estimate for one rank: centers, the bare product's output and what the method adds to them.

    Plain PyTorch: five R x D matrices measured (unit centers, gradients through the normalisation, momentum) and three
    R x N ones (cosines, coefficients), one more of each to be safe. This head: gradient and momentum of every row,
    and tiles; in sface's steady phase of few rows.
    """
    rows = len(class_shard(problem.num_classes, world_size, 0))
    batch = problem.batch * world_size
    centers, logits = 4 * rows * problem.embedding_dim, 4 * rows * batch
    # The bare product's stand-in for other centers than float32 on the device is part of what they save.
    stored = centers // 2 if problem.center_dtype == "bfloat16" else centers
    product = output_bytes(rows, batch)
    if problem.method == PRODUCT:
        return centers + 2 * product
    if problem.method == PLAIN:
        return centers + product + 6 * centers + 4 * logits
    if problem.method == SFACE:
        # An int8 copy, and momentum of at most half of the rows: in the phases that it is measured in far fewer move.
        return stored + product + centers // 4 + centers // 2 + batch * _TILE
    return stored + product + 2 * centers + batch * _TILE


def lack_of_memory(problem: Problem, world: World) -> str | None:
    """Why the problem cannot run, or None; the same on every rank: they share a machine or have a GPU each."""
    on_gpu = world.device.type == "cuda"
    available = torch.cuda.mem_get_info(world.device)[0] if on_gpu else available_bytes()
    least = torch.tensor(-1 if available is None else available, device=world.device)
    if world.world_size > 1:
        dist.all_reduce(least, op=dist.ReduceOp.MIN)
    needed = needed_bytes(problem, world.world_size) * (1 if on_gpu else world.world_size)
    if least < 0 or needed <= least:
        return None
    return f"it needs about {needed / GIB:.1f} GiB, {int(least) / GIB:.1f} GiB are free"
