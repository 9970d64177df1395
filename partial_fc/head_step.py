"""One forward and backward of the head: gather, score, send gradients back, keep the centers' own.

Shape letters: D embedding size, B this rank's batch, N global batch, R this rank's classes, S those that take part.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from partial_fc.row_gradient import RowGradient
from partial_fc.selection import Selection, select_all, select_sample
from partial_fc.sface import SFace
from partial_fc.sface_pass import sface_over_tiles
from partial_fc.softmax_pass import softmax_over_tiles
from partial_fc.stats import HeadStats
from partial_fc.tiled import CUT_HALVINGS, TiledResult, normalize_rows, through_normalization

if TYPE_CHECKING:
    from partial_fc.head import PartialFC


class HeadStep(torch.autograd.Function):
    """Loss and both gradients in one forward pass; backward scales them and hands each to its owner.

    Embeddings get theirs through autograd, the centers' goes to ``head.row_gradient``. Collectives run in forward
    alone: a rank that skips backward cannot leave the others waiting.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, centers: Tensor, identities: Tensor, head: "PartialFC") -> Tensor:
        """[B, D] float32, [R, D], [B] int64 -> float32 scalar, the mean over the global batch."""
        collectives = head.collectives
        collectives.reset_count()
        sizes = collectives.batch_sizes(len(embeddings), embeddings.device)
        if sum(sizes) == 0:
            raise ValueError("the global batch is empty: no rank has a sample")
        unit, inverse = normalize_rows(embeddings)
        all_unit, all_identities = collectives.gather_batch(unit, identities, sizes)
        with_gradient = any(ctx.needs_input_grad)
        selection = _select(head, all_identities)
        part = _score(head, all_unit, centers, selection, with_gradient=with_gradient)
        if with_gradient:
            unit_gradient = collectives.scatter_sum(part.unit_gradient, sizes)
            assert part.center_gradient is not None, "asked for with the gradient"
            ctx.embedding_gradient = through_normalization(unit_gradient, unit, inverse)
            ctx.row_gradient = RowGradient(selection.rows, part.center_gradient)
            ctx.head = head
        totals = collectives.sum(torch.cat([torch.stack([part.intra, part.inter]), part.moments]))
        head.stats = _stats(totals.tolist(), head)
        return (totals[0] + totals[1]).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Scale both gradients by ``grad_output``. Raises RuntimeError when it runs a second time."""
        if ctx.embedding_gradient is None:
            raise RuntimeError("backward ran twice through one head step: call head(embeddings, identities) again")
        # The buffers belong to this graph alone, so they are scaled in place and given away.
        embedding_gradient = ctx.embedding_gradient.mul_(grad_output)
        if ctx.needs_input_grad[1]:
            ctx.row_gradient.values.mul_(grad_output)
            ctx.head.add_gradient(ctx.row_gradient)
        ctx.embedding_gradient = ctx.row_gradient = None
        return embedding_gradient if ctx.needs_input_grad[0] else None, None, None, None


def _select(head: "PartialFC", identities: Tensor) -> Selection:
    if head.sample_rate == 1.0 or not head.training:
        return select_all(head.class_shard, identities)
    return select_sample(
        head.class_shard, identities, sample_rate=head.sample_rate, seed=head.seed, step=head.steps_taken
    )


def _score(
    head: "PartialFC", unit: Tensor, centers: Tensor, selection: Selection, *, with_gradient: bool
) -> TiledResult:
    tile_classes = head.tile_classes
    if isinstance(head.loss, SFace):
        return sface_over_tiles(
            unit, centers, selection, head.loss, tile_classes=tile_classes, with_gradient=with_gradient
        )
    return softmax_over_tiles(
        unit,
        centers,
        selection,
        head.loss,
        head.collectives,
        tile_classes=tile_classes,
        with_gradient=with_gradient,
    )


def _stats(totals: list[float], head: "PartialFC") -> HeadStats:
    intra, inter, own_sum, positives, negative_sum, negative_squares, negatives, active = totals
    mean = negative_sum / negatives if negatives else math.nan  # of pi/2 - theta
    variance = negative_squares / negatives - mean * mean if negatives else math.nan
    return HeadStats(
        mode="dense",
        active_pairs=int(active),
        error=0.0,
        cut=head.loss.scale * 2.0**-CUT_HALVINGS,
        loss=intra + inter,
        loss_intra=intra,
        loss_inter=inter,
        theta_positive=math.pi / 2 - own_sum / positives if positives else math.nan,
        theta_negative=math.pi / 2 - mean,
        theta_negative_std=math.sqrt(variance) if not variance < 0.0 else 0.0,
        bytes_moved=head.collectives.bytes_moved,
    )
