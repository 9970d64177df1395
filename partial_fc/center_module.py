"""The class centers of a head as a module's parameter: stored as asked for, read, written, saved and moved.

Shape letters: R rows of this rank's class shard, D embedding size, A rows.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from partial_fc.center_rows import CenterRows
from partial_fc.class_shard import ClassShard
from partial_fc.initial_centers import initial_centers
from partial_fc.kept_coefficients import CoefficientKeeper
from partial_fc.seen_classes import SeenClasses
from partial_fc.tolerance import ToleranceControl
from partial_fc.workspace import Workspace

CenterDtype = Literal["float32", "bfloat16"]
CenterMemory = Literal["device", "host"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MEMORIES = ("device", "host")


class CenterModule(nn.Module):
    """What :class:`partial_fc.PartialFC` is made of, but for its loss. moves: whether rows move on their own, as those
    of SFace over all classes do.

    Raises ValueError for a type or a place that centers cannot have.
    """

    def __init__(
        self,
        shard: ClassShard,
        embedding_dim: int,
        control: ToleranceControl,
        *,
        moves: bool,
        seed: int,
        device: torch.device,
        center_dtype: CenterDtype,
        center_memory: CenterMemory,
    ) -> None:
        super().__init__()
        if center_dtype not in DTYPES:
            raise ValueError(f"center_dtype is one of {', '.join(DTYPES)}, got {center_dtype!r}")
        if center_memory not in MEMORIES:
            raise ValueError(f"center_memory is one of {', '.join(MEMORIES)}, got {center_memory!r}")
        self.class_shard = shard
        self.embedding_dim = embedding_dim
        self.control = control
        self.seed = seed
        self.device = device
        self.center_dtype = DTYPES[center_dtype]
        self.in_host_memory = center_memory == "host" and device.type != "meta"
        where = torch.device("cpu") if self.in_host_memory else device
        pinned = self.in_host_memory and device.type == "cuda"
        initial = initial_centers(shard, embedding_dim, seed, where, self.center_dtype, pinned=pinned)
        # Not by attribute: reading ``centers`` is a property, which brings them up to date first.
        self._parameters["centers"] = nn.Parameter(initial)
        self.workspace = Workspace(device)
        self.keeper = CoefficientKeeper(self.workspace)
        self.rows: CenterRows | None = self.new_rows() if moves else None
        self._version = self.stored_centers._version
        self.steps_taken = 0  # optimizer steps: which draw of negatives comes next
        self.seen = SeenClasses(shard, device)

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

    def _apply(self, *args: Any, **kwargs: Any) -> "CenterModule":
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
