"""Rows of an older checkpoint to the ranks that own their classes now: each chunk is read once, by one rank.

Shape letters: W ranks, n rows, w bytes of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from partial_fc import class_shard, partition
from trainer.checkpoint.trained import CENTERS
from trainer.each_rank import each_rank
from trainer.errors import ConfigError
from trainer.growth.matching import NEW
from trainer.growth.row_files import Field, RowFiles, Rows
from trainer.world import World

BUFFER_BYTES = 64 << 20  # received at a time, beside the chunk being read
CLASS = Field(torch.int64)


@dataclass(frozen=True)
class Renumbering:
    """number_now: [old classes] int64, the number of each among the ``num_classes`` of now; ``NEW``: it is no more."""

    number_now: Tensor
    num_classes: int

    @classmethod
    def inverse(cls, source: Tensor, num_old: int) -> "Renumbering":
        """From the old number of each class now."""
        number_now = torch.full((num_old,), NEW)
        kept = (source != NEW).nonzero().squeeze(1)
        number_now[source[kept]] = kept
        return cls(number_now, len(source))

    def apply(self, classes: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        """What is left of rows of old ``classes`` (-1: of none), and their numbers now."""
        if len(classes) and int(classes.max()) >= len(self.number_now):
            raise ConfigError(f"the old run's checkpoint has rows of class {int(classes.max())}: it is damaged")
        now = torch.where(classes >= 0, self.number_now[classes], NEW)
        kept = (now != NEW).nonzero().squeeze(1)
        return now[kept], {name: values[kept] for name, values in rows.items()}


def exchange_rows(files: RowFiles, renumbering: Renumbering, world: World) -> Iterator[tuple[Tensor, Rows]]:
    """Yield ``(classes [n], rows by field [n, ...])``, by their numbers now, of classes in this rank's shard.

    They come some at a time, in no order. Blocks are read in file order, neighbouring ones by one rank, and rows change
    ranks in portions that need ``BUFFER_BYTES`` on the receiving side, whatever the numbers are. All ranks iterate to
    the end. Raises ConfigError on all of them where one cannot read a block, or finds NaN or infinite numbers in it.
    """
    fields = {"class": CLASS} | files.fields
    width = sum(field.nbytes for field in fields.values())
    most = max(1, BUFFER_BYTES // (width * world.world_size))
    blocks = [range(*partition(len(files.sizes), world.world_size, rank)) for rank in range(world.world_size)]
    starts = torch.tensor(
        [class_shard(renumbering.num_classes, world.world_size, rank).start for rank in range(world.world_size)]
    )
    for turn in range(len(blocks[0])):  # rank 0 has the most
        of_ranks = [of_rank[turn] if turn < len(of_rank) else None for of_rank in blocks]

        def read(block: int | None = of_ranks[world.rank]) -> tuple[Tensor, Rows]:
            classes, rows = renumbering.apply(*(files.read(block) if block is not None else _nothing(files.fields)))
            for name, field in files.fields.items():
                if field.width is not None and not bool(rows[name].isfinite().all()):
                    what = "centers" if name == CENTERS else f"centers' {name.removeprefix('center_')}"
                    raise ConfigError(
                        f"growth: the old run's {what} are not finite: it has diverged, grow from an earlier checkpoint"
                    )
            return classes, rows

        classes, rows = each_rank(world, read, "growth")
        rows["class"] = classes
        for first in range(0, max(files.sizes[block] for block in of_ranks if block is not None), most):
            part = {name: rows[name][first : first + most] for name in fields}
            received = part if world.world_size == 1 else _swap(part, fields, starts, world)
            if len(received["class"]):
                yield received.pop("class"), received


def _swap(rows: Rows, fields: dict[str, Field], starts: Tensor, world: World) -> Rows:
    """One all-to-all: every row goes to the rank that owns its class."""
    owners = torch.searchsorted(starts, rows["class"], right=True) - 1
    order = torch.argsort(owners, stable=True)
    count = len(order)
    parts = [_plain(rows[name][order]).view(torch.uint8).reshape(count, field.nbytes) for name, field in fields.items()]
    packed = torch.cat(parts, dim=1)
    sent = torch.bincount(owners, minlength=world.world_size)
    got = torch.empty_like(sent)
    dist.all_to_all_single(got, sent)
    received = packed.new_empty(int(got.sum()), packed.shape[1])
    dist.all_to_all_single(received, packed, got.tolist(), sent.tolist())
    found, begin = {}, 0
    for name, field in fields.items():
        values = _plain(received[:, begin : begin + field.nbytes]).view(field.dtype)
        found[name] = values.squeeze(1) if field.width is None else values
        begin += field.nbytes
    return found


def _plain(tensor: Tensor) -> Tensor:
    """In new memory without gaps: a lone row counts as contiguous with any stride, but has no view of another type."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _nothing(fields: dict[str, Field]) -> tuple[Tensor, Rows]:
    rows = {
        name: torch.empty(0, *([] if field.width is None else [field.width]), dtype=field.dtype)
        for name, field in fields.items()
    }
    return torch.empty(0, dtype=torch.int64), rows
