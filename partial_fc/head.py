"""PartialFC: the classification head whose class centers are split over all ranks.

Shape letters: C classes, D embedding size, B this rank's batch, N global batch, R this rank's classes, S those of them
that take part in a step.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from partial_fc.center_rows import CenterRows
from partial_fc.class_shard import ClassShard, check_identities, class_shard
from partial_fc.collectives import Collectives
from partial_fc.full_gradient import FullGradient
from partial_fc.head_step import HeadStep
from partial_fc.initial_centers import initial_centers
from partial_fc.kept_coefficients import CoefficientKeeper
from partial_fc.margins import CombinedMargin
from partial_fc.row_gradient import RowGradient
from partial_fc.seen_classes import SeenClasses
from partial_fc.sface import SFace
from partial_fc.stats import HeadStats
from partial_fc.tolerance import ToleranceControl
from partial_fc.workspace import Workspace

CenterDtype = Literal["float32", "bfloat16"]
CenterMemory = Literal["device", "host"]
MEMORIES = ("device", "host")
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TILE_CLASSES, TILE_CLASSES_ON_GPU = 4096, 65536  # what a core's cache holds; where launching costs more than memory


class PartialFC(nn.Module):
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
        super().__init__()
        if tile_classes is None:
            tile_classes = TILE_CLASSES if torch.device(device).type == "cpu" else TILE_CLASSES_ON_GPU
        if num_classes < 1 or embedding_dim < 1 or tile_classes < 1:
            raise ValueError(
                f"num_classes {num_classes}, embedding_dim {embedding_dim} and tile_classes {tile_classes} "
                "must all be at least 1"
            )
        if not 0.0 <= tolerance < 1.0:
            raise ValueError(f"tolerance is a relative error in [0, 1), got {tolerance}")
        if not 0.0 < sample_rate <= 1.0:
            raise ValueError(f"sample_rate is the fraction of classes used per step, in (0, 1], got {sample_rate}")
        if center_dtype not in DTYPES:
            raise ValueError(f"center_dtype is one of {', '.join(DTYPES)}, got {center_dtype!r}")
        if center_memory not in MEMORIES:
            raise ValueError(f"center_memory is one of {', '.join(MEMORIES)}, got {center_memory!r}")
        self.num_classes = num_classes
        self.device = torch.device(device)
        self.in_host_memory = center_memory == "host" and self.device.type != "meta"
        self.center_dtype = DTYPES[center_dtype]
        self.embedding_dim = embedding_dim
        self.loss: SFace | CombinedMargin = SFace() if loss is None else loss
        if not isinstance(self.loss, SFace | CombinedMargin):
            raise ValueError(f"loss must be SFace, ArcFace, CosFace or CombinedMargin, got {self.loss!r}")
        self.tolerance = tolerance
        self.sample_rate = sample_rate
        self.seed = seed
        self.tile_classes = tile_classes
        self.collectives = group if isinstance(group, Collectives) else Collectives(group)
        self.class_shard: ClassShard = class_shard(num_classes, self.collectives.world_size, self.collectives.rank)
        # Not by attribute: reading ``centers`` is a property, which brings them up to date first.
        where = torch.device("cpu") if self.in_host_memory else self.device
        initial = initial_centers(self.class_shard, embedding_dim, seed, where, self.center_dtype)
        if self.in_host_memory and self.device.type == "cuda":
            initial = initial.pin_memory()
        self._parameters["centers"] = nn.Parameter(initial)
        self.workspace = Workspace(torch.device(device))
        self.keeper = CoefficientKeeper(self.workspace)
        self.control = ToleranceControl(tolerance, self.loss.scale)
        self.rows: CenterRows | None = None
        if isinstance(self.loss, SFace) and sample_rate == 1.0:
            self.rows = self.new_rows()
        self._version = self.stored_centers._version
        self.row_gradient: RowGradient | FullGradient | None = None
        self.steps_taken = 0  # optimizer steps: which draw of negatives comes next
        self.stats: HeadStats | None = None
        self.seen = SeenClasses(self.class_shard, device)

    @property
    def stored_centers(self) -> nn.Parameter:
        """The parameter as kept between steps: without the common scale, rows in motion as of their last touch."""
        centers = self._parameters["centers"]
        assert centers is not None, "set when the head was made"
        return centers

    @property
    def centers(self) -> Tensor:
        """[R, D] float32, this rank's centers, current. Read it anew after a step.

        Of float32 centers this is the parameter itself: writing into it is allowed. Of bfloat16 ones it is a copy:
        twice their memory, and nothing of it goes back. :meth:`read_centers` and :meth:`write_centers` take a part.
        """
        if self.center_dtype != torch.float32:
            return self.read_centers(0, len(self.class_shard))
        self.bring_centers_to_now()
        return self.stored_centers

    @torch.no_grad()
    def read_centers(self, begin: int, end: int) -> Tensor:
        """A new [end - begin, D] float32 tensor: rows of this rank's shard as they stand now. Nothing changes."""
        return self.read_rows(torch.arange(begin, end))

    @torch.no_grad()
    def read_rows(self, rows: Tensor) -> Tensor:
        """As :meth:`read_centers`, of any ``rows`` [n] int64 of the shard."""
        self._notice_writes()
        if self.rows is not None:
            return self.rows.read(rows.to(self.device))
        return self.stored_centers[rows.to(self.stored_centers.device)].to(self.device, torch.float32)

    @torch.no_grad()
    def write_centers(self, begin: int, centers: Tensor) -> None:
        """Replace the rows of this rank's shard from ``begin`` on by ``centers`` [A, D]; bfloat16 takes the nearest.

        Of their momentum, the part that weight decay made follows the rows, as with every write.
        Raises ValueError where the shard has no such rows.
        """
        rows = len(self.class_shard)
        if begin < 0 or begin + len(centers) > rows or centers.shape[1:] != (self.embedding_dim,):
            raise ValueError(
                f"this rank holds {rows} centers of {self.embedding_dim}, got {list(centers.shape)} to write at {begin}"
            )
        self._notice_writes()
        if self.rows is not None and self.rows.is_rounded:
            self.rows.write(begin, centers)
            return
        self.bring_centers_to_now()
        self.stored_centers[begin : begin + len(centers)] = centers.to(self.stored_centers.device)

    @torch.no_grad()
    def bring_centers_to_now(self) -> None:
        """Make the stored centers current; whoever asked may write into them.

        Those in bfloat16 still want the common scale of their momentum's arithmetic: it stays apart, as multiplying by
        it would round every row.
        """
        self._notice_writes()
        if self.rows is not None:
            if self.rows.is_rounded:
                self.rows.bring_to_now()
            else:
                self.rows.make_plain()
            self.rows.forget_codes()

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """As of any module; float32 centers in it are current, bfloat16 ones are as stored."""
        if self.center_dtype == torch.float32:
            self.bring_centers_to_now()
        return super().named_parameters(*args, **kwargs)

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

    def _notice_writes(self) -> None:
        """Codes do not outlive a write to the centers; a new tensor behind them (``.data``, a deep copy) takes over."""
        stored = self.stored_centers
        if self.rows is None:
            return
        if stored.data_ptr() != self.rows.table.data_ptr():
            if stored.shape != self.rows.table.shape or stored.dtype != self.center_dtype:
                kind = str(self.center_dtype).removeprefix("torch.")
                raise ValueError(
                    f"centers must stay {list(self.rows.table.shape)} {kind}, found {list(stored.shape)} "
                    f"{stored.dtype}: give head.centers.data a tensor like the one it had"
                )
            self.rows.lie_in(stored.detach())
        if stored._version != self._version:
            self.rows.forget_codes()
            self._version = stored._version

    @torch.no_grad()
    def load_centers(self, local_centers: Tensor) -> None:
        """Replace this rank's rows by ``local_centers`` [R, D]; gradients are left alone, and momentum but for the part
        that weight decay put there: like every write, this one keeps it in proportion to the center.

        Raises ValueError when the shape is not this rank's.
        """
        if local_centers.shape != self.stored_centers.shape:
            raise ValueError(
                f"this rank holds classes [{self.class_shard.start}, {self.class_shard.stop}) and needs centers "
                f"{list(self.stored_centers.shape)}, got {list(local_centers.shape)}"
            )
        if self.center_dtype == torch.float32:
            self.bring_centers_to_now()
        elif self.rows is not None:
            self.rows.assume_scale(1.0)
            self.rows.forget_codes()
        self.stored_centers.copy_(local_centers)

    def new_rows(self) -> CenterRows:
        """The stored centers with no row in motion."""
        return CenterRows(
            self.stored_centers.detach(),
            first_class=self.class_shard.start,
            seed=self.seed,
            device=self.device if self.in_host_memory else None,
        )

    def add_gradient(self, gradient: RowGradient | FullGradient) -> None:
        """Add one micro-batch's gradient to ``row_gradient``, which takes over its buffers."""
        pending = self.row_gradient
        self.row_gradient = gradient if pending is None else pending.plus(gradient, len(self.class_shard))  # type: ignore[arg-type]  # a head has one kind

    def center_gradient(self) -> Tensor | None:
        """``row_gradient`` as a new dense [R, D] tensor, 0 where a center took no part; None before any backward."""
        return None if self.row_gradient is None else self.row_gradient.dense(len(self.class_shard))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of the centers, whatever ``set_to_none`` says."""
        self.row_gradient = None
        self.seen.drop()

    def get_extra_state(self) -> dict[str, Any]:
        """For ``state_dict``: the step counter and the running means behind the cut, so that both go on; the common
        scale of the saved centers.
        """
        scale = 1.0 if self.rows is None else self.rows.shared.scale
        return {"steps_taken": self.steps_taken, "control": self.control.state(), "scale": scale}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The counterpart of :meth:`get_extra_state`."""
        self.steps_taken = int(state["steps_taken"])
        self.control.load_state(state["control"])
        if self.rows is not None:
            self.rows.assume_scale(float(state.get("scale", 1.0)))

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.bring_centers_to_now()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.bring_centers_to_now()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> "PartialFC":
        if args[0](torch.empty(0, dtype=self.center_dtype)).dtype != self.center_dtype:
            kind = str(self.center_dtype).removeprefix("torch.")
            raise ValueError(f"the head keeps its centers in {kind}: convert the backbone alone")
        if self.in_host_memory:
            here = torch.empty(0, device=self.device)
            if (wanted := args[0](here).device) != here.device:
                raise ValueError(f"centers stay in host memory, and the head on {self.device}: make it on {wanted}")
            return self
        self.bring_centers_to_now()
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch has no types here
        self.device = self.stored_centers.device
        self.seen.to(self.device)
        if self.rows is not None and self.rows.table.data_ptr() != self.stored_centers.data_ptr():
            self.workspace = Workspace(self.stored_centers.device)
            self.keeper = CoefficientKeeper(self.workspace)
            self.rows = self.new_rows()  # on another device momentum begins anew
        return self

    def extra_repr(self) -> str:
        """Shown by ``print(head)``."""
        shard = self.class_shard
        sampled = "" if self.sample_rate == 1.0 else f", sample_rate={self.sample_rate}"
        classes = f"classes [{shard.start}, {shard.stop}) of {self.num_classes}"
        return f"{classes}, D={self.embedding_dim}, {self.loss}{sampled}"
