"""Where a checkpoint keeps what belongs to single classes: rows in chunks, and which class each row is of.

Shape letters: n rows of one chunk, D embedding size.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata

from trainer.checkpoint.load import read_parts
from trainer.checkpoint.parts import Part
from trainer.checkpoint.row_chunks import row_chunks
from trainer.checkpoint.storage import DamagedCheckpointError, RawReader
from trainer.checkpoint.trained import CENTER_DTYPES
from trainer.checkpoint.tree import TENSOR, empty_tensors, join_tree

Rows = dict[str, Tensor]
SMALL = {"touched": torch.int32, "expiry": torch.int32, "unrest": torch.float32}
"""What a row in motion has beside its momentum."""


@dataclass(frozen=True)
class Field:
    """One value of a row: ``dtype`` [width], or a single number where width is None."""

    dtype: torch.dtype
    width: int | None = None

    @property
    def nbytes(self) -> int:
        """Of one row."""
        return self.dtype.itemsize * (1 if self.width is None else self.width)


class RowFiles(Protocol):
    """Blocks of rows in file order. sizes: rows of each block. fields: what a row holds."""

    sizes: list[int]
    fields: dict[str, Field]

    def read(self, block: int) -> tuple[Tensor, Rows]:
        """Classes [n] int64 (-1: of none) and their rows by field, [n, ...] each. Raises DamagedCheckpointError."""


class ClassRows:
    """The tensor ``name`` [classes, D], whose row i is of class i; it goes by ``field`` among the rows."""

    def __init__(self, reader: RawReader, name: str, *, embedding_dim: int) -> None:
        self._reader, self._name = reader, name
        self._chunks = row_chunks(reader, name, embedding_dim, CENTER_DTYPES)
        self.sizes = [chunk.sizes[0] for chunk in self._chunks]
        saved = reader.metadata.state_dict_metadata[name]
        assert isinstance(saved, TensorStorageMetadata), "just checked"
        self.fields = {name: Field(saved.properties.dtype, embedding_dim)}

    def read(self, block: int) -> tuple[Tensor, Rows]:
        """As :class:`RowFiles`."""
        chunk = self._chunks[block]
        rows = self._reader.chunk(MetadataIndex(self._name, chunk.offsets))
        return torch.arange(chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0]), {self._name: rows}


class MotionRows:
    """The rows in motion of all ranks that saved; ``motions``: their states as the description has them.

    Momentum comes chunk by chunk; the few bytes that a row has beside it are read for one saving rank at a time.
    """

    def __init__(self, reader: RawReader, motions: list[dict[str, Any]], *, embedding_dim: int) -> None:
        self._reader, self._motions = reader, motions
        self._blocks = [
            (motion, motion["momentum"][TENSOR], chunk)
            for motion in motions
            if motion["momentum"][TENSOR] in reader.metadata.state_dict_metadata  # a rank with none in motion has none
            for chunk in row_chunks(reader, motion["momentum"][TENSOR], embedding_dim)
        ]
        self.sizes = [chunk.sizes[0] for _, _, chunk in self._blocks]
        self.fields = {name: Field(dtype) for name, dtype in SMALL.items()}
        self.fields["momentum"] = Field(torch.float32, embedding_dim)
        self._held: tuple[str, Rows] = ("", {})

    def read(self, block: int) -> tuple[Tensor, Rows]:
        """As :class:`RowFiles`."""
        motion, name, chunk = self._blocks[block]
        if self._held[0] != name:
            self._held = name, self._small(motion)
        here = slice(chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0])
        rows = {key: values[here] for key, values in self._held[1].items()}
        if len(rows["classes"]) != chunk.sizes[0]:
            raise DamagedCheckpointError(f"{name} has more rows than classes; use another checkpoint")
        momentum = self._reader.chunk(MetadataIndex(name, chunk.offsets))
        return rows.pop("classes"), rows | {"momentum": momentum}

    def _small(self, motion: dict[str, Any]) -> Rows:
        saved = {name: motion[name] for name in ("classes", *SMALL)}
        tensors = empty_tensors(saved, self._reader.metadata)
        read_parts(self._reader, {name: Part(tensor) for name, tensor in tensors.items()}, world=None)
        found: Rows = join_tree(saved, tensors)
        if {key: values.dtype for key, values in found.items()} != {"classes": torch.int64} | SMALL:
            raise DamagedCheckpointError("the motion of centers is of unknown types; use another checkpoint")
        return found
