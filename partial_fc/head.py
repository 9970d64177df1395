"""PartialFC: the classification head whose class centers are split over all ranks.

Shape letters: C classes, D embedding size, B this rank's batch, N global batch, R this rank's classes.
"""

import hashlib
import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from partial_fc.class_shard import ClassShard, check_identities, class_shard
from partial_fc.collectives import Collectives
from partial_fc.sface import SFace
from partial_fc.stats import HeadStats
from partial_fc.tiled import CUT_HALVINGS, normalize_rows, sface_over_tiles, through_normalization

INIT_STD = 0.01  # does not depend on C: the angular step of a center is about lr / |w|^2
INIT_BLOCK = 1024
TILE_CLASSES = 8192


class PartialFC(nn.Module):
    """Class centers sharded over a process group, with the loss computed where they live.

    One forward gathers all ranks' embeddings and identities (one all-gather), computes the loss and every
    gradient against this rank's centers tile by tile, and returns the embedding gradient to its rank (one
    reduce-scatter). Nothing that travels grows with C.

    The returned loss is the mean over the global batch, the same number on every rank, and ``backward`` gives
    the exact derivative of that number: ``centers.grad`` for this rank's rows and the gradient of this rank's
    embeddings. Backbone gradients of the ranks must therefore be **summed**. A wrapper that averages them over
    W ranks (DDP's default) needs its own factor W: say so there, once; the head hides none.

    num_classes: C. embedding_dim: D. loss: the loss and its parameters. tolerance: relative error of the
    batch's gradient that a step may make. sample_rate: fraction of the class shard used per step.
    group: process group; None is the default group if one exists, else a world of one. device: of the centers.
    seed: of the initial centers; center j depends on (seed, j) alone, never on the number of ranks.
    Raises ValueError for arguments that no head can have.
    """

    centers: nn.Parameter

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        loss: SFace | None = None,
        *,
        tolerance: float = 1e-3,
        sample_rate: float = 1.0,
        group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        tile_classes: int = TILE_CLASSES,
    ) -> None:
        super().__init__()
        if num_classes < 1 or embedding_dim < 1 or tile_classes < 1:
            raise ValueError(
                f"num_classes {num_classes}, embedding_dim {embedding_dim} and tile_classes {tile_classes} "
                "must all be at least 1"
            )
        if not 0.0 <= tolerance < 1.0:
            raise ValueError(f"tolerance is a relative error in [0, 1), got {tolerance}")
        if sample_rate != 1.0:
            raise ValueError(
                f"sample_rate {sample_rate}: this head trains all classes in every step; use sample_rate = 1.0"
            )
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.loss = SFace() if loss is None else loss
        self.tolerance = tolerance
        self.sample_rate = sample_rate
        self.tile_classes = tile_classes
        self.collectives = Collectives(group)
        self.class_shard: ClassShard = class_shard(num_classes, self.collectives.world_size, self.collectives.rank)
        self.centers = nn.Parameter(initial_centers(self.class_shard, embedding_dim, seed).to(device))
        self.stats: HeadStats | None = None

    def forward(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """Loss of the global batch: [B, D] floating, [B] int64 global ids -> float32 scalar.

        B may differ between ranks and be 0 on some. Every rank of the group must call it.
        Raises ValueError for wrong shapes or types and identities outside ``[0, C)``.
        """
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embedding_dim:
            raise ValueError(f"embeddings must be [B, {self.embedding_dim}], got {list(embeddings.shape)}")
        check_identities(identities, self.num_classes)
        if len(identities) != len(embeddings):
            raise ValueError(f"{len(embeddings)} embeddings came with {len(identities)} identities")
        loss: Tensor = _HeadFunction.apply(  # type: ignore[no-untyped-call]
            embeddings.float(), self.centers, identities, self
        )
        return loss

    @torch.no_grad()
    def load_centers(self, local_centers: Tensor) -> None:
        """Replace this rank's rows by ``local_centers`` [R, D]; gradients and momentum are left alone.

        Raises ValueError when the shape is not this rank's.
        """
        if local_centers.shape != self.centers.shape:
            raise ValueError(
                f"this rank holds classes [{self.class_shard.start}, {self.class_shard.stop}) and needs centers "
                f"{list(self.centers.shape)}, got {list(local_centers.shape)}"
            )
        self.centers.copy_(local_centers)

    def extra_repr(self) -> str:
        """Shown by ``print(head)``."""
        shard = self.class_shard
        return f"classes [{shard.start}, {shard.stop}) of {self.num_classes}, D={self.embedding_dim}, {self.loss}"


def initial_centers(shard: ClassShard, embedding_dim: int, seed: int) -> Tensor:
    """[R, D] float32 normal(0, 0.01); row j depends on (seed, global class id j) alone.

    Drawn in blocks of 1,024 classes, each from its own generator, so any rank can draw any range.
    """
    centers = torch.empty(len(shard), embedding_dim)
    for block in range(shard.start // INIT_BLOCK, math.ceil(shard.stop / INIT_BLOCK)):
        digest = hashlib.blake2b(f"{seed}:{block}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
        rows = torch.empty(INIT_BLOCK, embedding_dim).normal_(0.0, INIT_STD, generator=generator)
        first = block * INIT_BLOCK
        begin, end = max(first, shard.start), min(first + INIT_BLOCK, shard.stop)
        centers[begin - shard.start : end - shard.start] = rows[begin - first : end - first]
    return centers


class _HeadFunction(torch.autograd.Function):
    """Loss and both gradients in one forward pass; backward only scales them.

    Collectives run in forward alone: a rank that skips backward cannot leave the others waiting.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, centers: Tensor, identities: Tensor, head: PartialFC) -> Tensor:
        collectives = head.collectives
        collectives.reset_count()
        sizes = collectives.batch_sizes(len(embeddings), embeddings.device)
        if sum(sizes) == 0:
            raise ValueError("the global batch is empty: no rank has a sample")
        unit, inverse = normalize_rows(embeddings)
        all_unit, all_identities = collectives.gather_batch(unit, identities, sizes)
        with_gradient = any(ctx.needs_input_grad)
        part = sface_over_tiles(
            all_unit,
            all_identities,
            centers,
            head.class_shard,
            head.loss,
            tile_classes=head.tile_classes,
            with_gradient=with_gradient,
        )
        if with_gradient:
            unit_gradient = collectives.scatter_sum(part.unit_gradient, sizes)
            ctx.embedding_gradient = through_normalization(unit_gradient, unit, inverse)
            ctx.center_gradient = part.center_gradient
        totals = collectives.sum(torch.cat([torch.stack([part.intra, part.inter]), part.moments]))
        head.stats = _stats(totals.tolist(), head)
        return (totals[0] + totals[1]).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # The buffers belong to this graph alone, so they are scaled in place; a second backward would see
        # them scaled twice, hence the assert (autograd has freed them by then anyway).
        assert ctx.embedding_gradient is not None, "backward ran twice through one head step"
        embedding_gradient = ctx.embedding_gradient.mul_(grad_output)
        center_gradient = ctx.center_gradient.mul_(grad_output)
        ctx.embedding_gradient = ctx.center_gradient = None
        needs = ctx.needs_input_grad
        return embedding_gradient if needs[0] else None, center_gradient if needs[1] else None, None, None


def _stats(totals: list[float], head: PartialFC) -> HeadStats:
    intra, inter, own_sum, positives, sum_theta, sum_squares, negatives, active = totals
    mean = sum_theta / negatives if negatives else math.nan
    return HeadStats(
        mode="dense",
        active_pairs=int(active),
        error=0.0,
        cut=head.loss.scale * 2.0**-CUT_HALVINGS,
        loss=intra + inter,
        loss_intra=intra,
        loss_inter=inter,
        theta_positive=own_sum / positives if positives else math.nan,
        theta_negative=mean,
        theta_negative_std=math.sqrt(max(sum_squares / negatives - mean * mean, 0.0)) if negatives else math.nan,
        bytes_moved=head.collectives.bytes_moved,
    )
