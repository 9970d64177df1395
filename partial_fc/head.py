"""PartialFC: the classification head whose class centers are split over all ranks.

Shape letters: C classes, D embedding size, B this rank's batch, N global batch, R this rank's classes, S those of them
that take part in a step.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from partial_fc.center_module import CenterDtype, CenterMemory, CenterModule
from partial_fc.class_shard import check_identities, class_shard
from partial_fc.collectives import Collectives
from partial_fc.full_gradient import FullGradient
from partial_fc.head_step import HeadStep
from partial_fc.margins import CombinedMargin
from partial_fc.row_gradient import RowGradient
from partial_fc.sface import SFace
from partial_fc.stats import HeadStats
from partial_fc.tiled_gradient import TiledGradient
from partial_fc.tolerance import ToleranceControl

TILE_CLASSES, TILE_CLASSES_ON_GPU = 4096, 65536  # what a core's cache holds; where launching costs more than memory


class PartialFC(CenterModule):
    """Class centers sharded over a process group, with the loss computed where they live.

    One forward gathers all ranks' embeddings and identities (one all-gather), computes the loss and every
    gradient against this rank's centers tile by tile, and returns the embedding gradient to its rank (one
    reduce-scatter). Margin softmax losses also exchange 12 bytes per sample for their denominator. Nothing that
    travels grows with C.

    The returned loss is the mean over the global batch, the same number on every rank, and ``backward`` gives
    the exact derivative of that number: ``row_gradient`` for this rank's centers and the gradient of this rank's
    embeddings. Backbone gradients of the ranks must therefore be **summed**. A wrapper that averages them over
    W ranks (DDP's default) needs a factor W: :func:`scale_gradient`; the head hides none.

    SFace over all centers keeps only the pairs that matter: a sample of centers, scored exactly, tells which
    coefficients can be dropped with the relative error of the batch's gradient staying under ``tolerance``; an int8
    product with a rigorous bound finds all pairs above, float32 scores them. Where too many are active, or there are
    few classes, every pair is scored, as with the tolerance 0. ``stats`` says which way a step went. Sampling and
    margin softmax losses drop nothing.

    The gradient of the centers is not in ``centers.grad``, which stays None, but in ``row_gradient``, without a dense
    tensor. It adds up over micro-batches until :class:`CenterSGD` steps and clears it; other optimizers do not see it.

    With ``sample_rate`` r < 1 and in training mode, each rank uses round(r * R) of its centers in a step: all
    positives of the global batch and negatives drawn by (seed, step, first class of the shard). Micro-batches of one
    step share a draw. Centers not drawn rest: neither they nor their momentum change in that step. In eval
    mode (``head.eval()``) all centers take part.

    num_classes: C. embedding_dim: D. loss: SFace or a margin softmax, with its parameters; None is SFace().
    tolerance: relative error of the batch's gradient that a step may make. sample_rate: r, in (0, 1].
    group: process group; None is the default group if one exists, else a world of one; Collectives of one's own say
    rank and world size themselves. device: of the centers; "meta" makes the shapes of a rank's share, and no numbers.
    seed: of the initial centers, of the sampling and of the rounding; center j depends on (seed, j) alone, never on the
    number of ranks. center_dtype: what centers are stored in; "bfloat16" takes half the memory, all arithmetic is
    float32 of what is stored, updates are rounded as :mod:`partial_fc.stochastic_rounding` says. center_memory: where
    they are stored; "host" keeps them (and momentum that all rows have) in host memory, and brings the rows that a step
    needs to the device, see :mod:`partial_fc.staged_rows`; all else, the int8 copy too, is on the device.
    Raises ValueError for arguments that no head can have.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        loss: SFace | CombinedMargin | None = None,
        *,
        tolerance: float = 1e-3,
        sample_rate: float = 1.0,
        group: dist.ProcessGroup | Collectives | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        tile_classes: int | None = None,
        center_dtype: CenterDtype = "float32",
        center_memory: CenterMemory = "device",
    ) -> None:
        device = torch.device(device)
        if tile_classes is None:
            tile_classes = TILE_CLASSES if device.type == "cpu" else TILE_CLASSES_ON_GPU
        if num_classes < 1 or embedding_dim < 1 or tile_classes < 1:
            raise ValueError(
                f"num_classes {num_classes}, embedding_dim {embedding_dim} and tile_classes {tile_classes} "
                "must all be at least 1"
            )
        if not 0.0 <= tolerance < 1.0:
            raise ValueError(f"tolerance is a relative error in [0, 1), got {tolerance}")
        if not 0.0 < sample_rate <= 1.0:
            raise ValueError(f"sample_rate is the fraction of classes used per step, in (0, 1], got {sample_rate}")
        loss = SFace() if loss is None else loss
        if not isinstance(loss, SFace | CombinedMargin):
            raise ValueError(f"loss must be SFace, ArcFace, CosFace or CombinedMargin, got {loss!r}")
        collectives = group if isinstance(group, Collectives) else Collectives(group)
        super().__init__(
            class_shard(num_classes, collectives.world_size, collectives.rank),
            embedding_dim,
            ToleranceControl(tolerance, loss.scale),
            moves=isinstance(loss, SFace) and sample_rate == 1.0,
            seed=seed,
            device=device,
            center_dtype=center_dtype,
            center_memory=center_memory,
        )
        self.num_classes = num_classes
        self.loss: SFace | CombinedMargin = loss
        self.tolerance = tolerance
        self.sample_rate = sample_rate
        self.tile_classes = tile_classes
        self.collectives = collectives
        self.row_gradient: RowGradient | FullGradient | TiledGradient | None = None
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
        self._notice_writes()
        # float32 throughout: autocast would hand the products bf16 where the tolerance asks for more.
        with torch.autocast(embeddings.device.type, enabled=False):
            loss: Tensor = HeadStep.apply(embeddings.float(), self.stored_centers, identities, self)  # type: ignore[no-untyped-call]
        return loss

    def add_gradient(self, gradient: RowGradient | FullGradient | TiledGradient) -> None:
        """Add one micro-batch's gradient to ``row_gradient``, which takes over its buffers."""
        pending = self.row_gradient
        if isinstance(pending, RowGradient) and isinstance(gradient, TiledGradient):  # one of a sample, one of all
            gradient = RowGradient(None, gradient.dense(len(self.class_shard)))
        self.row_gradient = gradient if pending is None else pending.plus(gradient, len(self.class_shard))  # type: ignore[arg-type]  # a head has one kind

    def center_gradient(self) -> Tensor | None:
        """``row_gradient`` as a new dense [R, D] tensor, 0 where a center took no part; None before any backward."""
        return None if self.row_gradient is None else self.row_gradient.dense(len(self.class_shard))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of the centers, whatever ``set_to_none`` says."""
        self.row_gradient = None
        self.seen.drop()

    def extra_repr(self) -> str:
        """Shown by ``print(head)``."""
        shard = self.class_shard
        sampled = "" if self.sample_rate == 1.0 else f", sample_rate={self.sample_rate}"
        classes = f"classes [{shard.start}, {shard.stop}) of {self.num_classes}"
        return f"{classes}, D={self.embedding_dim}, {self.loss}{sampled}"
