"""One forward and backward of the head: gather, score, send gradients back, keep the centers' own.

Shape letters: D embedding size, B this rank's batch, N global batch, R this rank's classes, S those that take part.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from partial_fc.full_step import take_full_step
from partial_fc.host_centers import HostCenters
from partial_fc.row_gradient import RowGradient
from partial_fc.scored_step import ScoredStep, stats_of
from partial_fc.selection import select_all, select_sample
from partial_fc.sface import SFace
from partial_fc.sface_pass import sface_over_tiles
from partial_fc.softmax_pass import softmax_over_tiles
from partial_fc.tile_batches import tile_batch
from partial_fc.tiled import CUT_HALVINGS, OwnPairs, normalize_rows, through_normalization
from partial_fc.tiled_gradient import TiledGradient, TiledPart

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
        all_embeddings, all_identities = collectives.gather_batch(embeddings, identities, sizes)
        all_unit, all_inverse = normalize_rows(all_embeddings)
        first = sum(sizes[: collectives.rank])
        here = slice(first, first + len(embeddings))
        with_gradient = any(ctx.needs_input_grad)
        if head.rows is not None:
            step = take_full_step(head, head.rows, all_unit, all_inverse, all_identities, with_gradient=with_gradient)
        else:
            step = _sampled_step(head, all_unit, centers, all_identities, with_gradient=with_gradient)
        squared_norm = torch.zeros((), dtype=torch.float64, device=embeddings.device)
        if with_gradient:
            unit_gradient = collectives.scatter_sum(step.unit_gradient, sizes)
            ctx.embedding_gradient = through_normalization(unit_gradient, all_unit[here], all_inverse[here])
            ctx.row_gradient = step.center_gradient
            ctx.head = head
            ctx.identities = all_identities
            squared_norm = ctx.embedding_gradient.double().square().sum()
        parts = [torch.stack([step.intra, step.inter]), step.moments, torch.stack([squared_norm, step.center_force])]
        totals = collectives.sum(torch.cat(parts))
        head.stats = stats_of(totals.tolist(), step, head, batch=sum(sizes))
        return totals.new_tensor(head.stats.loss).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Scale both gradients by ``grad_output``. Raises RuntimeError when it runs a second time."""
        if ctx.embedding_gradient is None:
            raise RuntimeError("backward ran twice through one head step: call head(embeddings, identities) again")
        # The buffers belong to this graph alone, so they are scaled in place and given away.
        embedding_gradient = ctx.embedding_gradient.mul_(grad_output)
        if ctx.needs_input_grad[1]:
            ctx.row_gradient.scale_(grad_output)
            ctx.head.add_gradient(ctx.row_gradient)
            ctx.head.seen.add(ctx.identities)
        ctx.embedding_gradient = ctx.row_gradient = None
        return embedding_gradient if ctx.needs_input_grad[0] else None, None, None, None


def _sampled_step(
    head: "PartialFC", unit: Tensor, stored: Tensor, identities: Tensor, *, with_gradient: bool
) -> ScoredStep:
    """A margin softmax, or SFace over a sample of the centers."""
    centers = HostCenters(stored.detach(), head.workspace) if head.in_host_memory else stored
    if head.sample_rate == 1.0 or not head.training:
        selection = select_all(head.class_shard, identities)
    else:
        selection = select_sample(
            head.class_shard, identities, sample_rate=head.sample_rate, seed=head.seed, step=head.steps_taken
        )
    batch, own = tile_batch(unit, head.workspace), OwnPairs.of(selection, head.tile_classes)
    if isinstance(head.loss, SFace):
        part = sface_over_tiles(
            batch, centers, selection, own, head.loss, with_gradient=with_gradient, workspace=head.workspace
        )
    else:
        part = softmax_over_tiles(
            batch,
            centers,
            selection,
            own,
            head.loss,
            head.collectives,
            with_gradient=with_gradient,
            workspace=head.workspace,
        )
    gradient: RowGradient | TiledGradient | None = None
    if part.center_gradient is not None:
        gradient = RowGradient(selection.rows, part.center_gradient)
    elif with_gradient and isinstance(centers, HostCenters):
        assert part.coefficients is not None, "every pass tells how its gradient is made"
        tiled = TiledPart(part.coefficients, batch, selection, own)
        gradient = TiledGradient([tiled], centers, head.workspace, head.tile_classes)
    return ScoredStep(
        part.intra,
        part.inter,
        part.unit_gradient,
        gradient,
        part.moments,
        torch.zeros_like(part.intra),
        cut=head.loss.scale * 2.0**-CUT_HALVINGS,
    )
