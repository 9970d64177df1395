"""Tensors as a checkpoint holds them: whole ones, and rows of one that the ranks hold between them.

torch.distributed.checkpoint plans who writes and who reads which rows; these planners tell it which rows a rank has,
so that any number of ranks reads what any other number wrote.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

CHUNK_BYTES = 64 << 20  # written, checksummed and read together


@dataclass(frozen=True)
class Part:
    """Rows [start, start + len(tensor)) of a tensor of ``total`` rows; total None: the tensor is whole."""

    tensor: Tensor
    start: int = 0
    total: int | None = None

    @property
    def whole_size(self) -> torch.Size:
        """Size of the tensor that this is a part of."""
        return self.tensor.size() if self.total is None else torch.Size((self.total, *self.tensor.shape[1:]))

    def chunk(self, first: int, rows: int) -> ChunkStorageMetadata:
        """Rows [first, first + rows) of this part, as they lie in the whole tensor; a scalar has one chunk."""
        if not self.tensor.dim():
            return ChunkStorageMetadata(torch.Size(), torch.Size())
        shape = self.tensor.shape[1:]
        return ChunkStorageMetadata(torch.Size((self.start + first, *[0] * len(shape))), torch.Size((rows, *shape)))

    def chunks(self) -> Iterator[ChunkStorageMetadata]:
        """All of it, some megabytes at a time; nothing where it has no elements."""
        if not self.tensor.numel():
            return
        if not self.tensor.dim():
            yield self.chunk(0, 1)
            return
        row_bytes = math.prod(self.tensor.shape[1:]) * self.tensor.element_size()
        step = max(1, CHUNK_BYTES // row_bytes)
        for first in range(0, len(self.tensor), step):
            yield self.chunk(first, min(step, len(self.tensor) - first))

    def rows_of(self, chunk: ChunkStorageMetadata) -> Tensor:
        """The elements of one of the chunks: a view."""
        if not self.tensor.dim():
            return self.tensor
        first = chunk.offsets[0] - self.start
        return self.tensor[first : first + chunk.sizes[0]]


class PartsSavePlanner(DefaultSavePlanner):
    """Plans ``{name: Part}``; every rank names what it alone writes."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> SavePlan:
        """What this rank writes."""
        items = []
        for name, part in self.state_dict.items():
            chunks = list(part.chunks())
            # Of a TENSOR torch.distributed.checkpoint takes one chunk alone, and none from a second rank.
            kind = WriteItemType.TENSOR if part.total is None and len(chunks) == 1 else WriteItemType.SHARD
            properties = TensorProperties(dtype=part.tensor.dtype)
            for chunk in chunks:
                data = TensorWriteData(chunk=chunk, properties=properties, size=part.whole_size)
                items.append(WriteItem(index=MetadataIndex(name, chunk.offsets), type=kind, tensor_data=data))
        self.plan = SavePlan(items)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        """The elements of one chunk."""
        part: Part = self.state_dict[write_item.index.fqn]
        assert write_item.tensor_data is not None, "tensors only"
        return part.rows_of(write_item.tensor_data.chunk).detach()


class PartsLoadPlanner(DefaultLoadPlanner):
    """Fills ``{name: Part}`` in place from whatever chunks hold its rows.

    Raises ValueError when a tensor is not in the checkpoint, or is there with another size or type.
    """

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """As given: the default would look for tensors in it."""
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def create_local_plan(self) -> LoadPlan:
        """What this rank reads."""
        assert self.metadata is not None, "set up before"
        items: list[ReadItem] = []
        for name, part in self.state_dict.items():
            if not part.tensor.numel():
                continue
            saved = self.metadata.state_dict_metadata.get(name)
            if not isinstance(saved, TensorStorageMetadata):
                raise ValueError(f"it holds no {name}")
            if saved.size != part.whole_size or saved.properties.dtype != part.tensor.dtype:
                raise ValueError(
                    f"{name} is {list(saved.size)} {saved.properties.dtype} there, "
                    f"{list(part.whole_size)} {part.tensor.dtype} here"
                )
            wanted = part.chunk(0, len(part.tensor) if part.tensor.dim() else 1)
            items += create_read_items_for_chunk_list(name, saved, [wanted])
        return LoadPlan(items)

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """Where what was read goes: a view."""
        target: Tensor = self.state_dict[read_item.dest_index.fqn].tensor.detach()
        for dim, (offset, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            target = target.narrow(dim, offset, length)
        return target
