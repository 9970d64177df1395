"""Where the files of a checkpoint keep what a rank's centers need: first all of it is checked, then it is put in place.

Both go chunk by chunk, so what is read takes the room that it stays in, and one chunk's more. Files are read twice for
that, the second time mostly out of the kernel's memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import MetadataIndex

from partial_fc import PartialFC
from partial_fc.center_loading import CenterLoading
from trainer.checkpoint.row_chunks import row_chunks
from trainer.checkpoint.storage import DamagedCheckpointError, RawReader
from trainer.checkpoint.trained import CENTER_DTYPES, CENTER_MOMENTUM, CENTERS
from trainer.checkpoint.tree import TENSOR

Put = Callable[[CenterLoading, int, Tensor], None]


@dataclass(frozen=True)
class _Portion:
    """Rows [begin, end) of a chunk, which are put as those from ``start`` on."""

    index: MetadataIndex
    begin: int
    end: int
    start: int
    put: Put


class CenterFiles:
    """Centers and momentum of the classes of ``head``, as saved by any number of ranks.

    motions: of the ranks that saved rows in motion of these classes, as the description has them, in order; empty for a
    head without. classes: of all these rows, see :class:`partial_fc.center_loading.CenterLoading`.
    Raises DamagedCheckpointError for an index that makes no sense.
    """

    def __init__(
        self, reader: RawReader, head: PartialFC, *, motions: Sequence[dict[str, Any]], classes: Tensor | None
    ) -> None:
        self._reader, self._head = reader, head
        kept = head.stored_centers.dtype
        is_product = kept in CENTER_DTYPES
        self._portions = self._of_classes(CENTERS, CENTER_DTYPES if is_product else {kept}, CenterLoading.put_centers)
        self.has_momentum = CENTER_MOMENTUM in reader.metadata.state_dict_metadata
        if self.has_momentum:
            dtypes = {torch.float32 if is_product else kept}
            self._portions += self._of_classes(CENTER_MOMENTUM, dtypes, CenterLoading.put_momentum)
        if classes is not None:
            self._portions += self._in_motion(motions, classes)

    def check(self) -> None:
        """Read all that is needed once. Raises DamagedCheckpointError where it is not what was written."""
        for portion in self._portions:
            self._reader.check(portion.index)

    def put_into(self, loading: CenterLoading) -> None:
        """Read it again and put it where it stays. What is read twice is checked twice."""
        for portion in self._portions:
            # Nothing holds the chunk while the next one is read.
            portion.put(loading, portion.start, self._reader.chunk(portion.index)[portion.begin : portion.end])

    def _of_classes(self, name: str, dtypes: frozenset[torch.dtype] | set[torch.dtype], put: Put) -> list[_Portion]:
        """Of a tensor whose row i is of class i: this shard's rows."""
        shard, found = self._head.class_shard, []
        chunks = row_chunks(self._reader, name, self._head.embedding_dim, dtypes)
        if sum(chunk.sizes[0] for chunk in chunks) != self._head.num_classes:
            raise DamagedCheckpointError(f"{name} has not a row for each class; use another checkpoint")
        for chunk in chunks:
            first, rows = chunk.offsets[0], chunk.sizes[0]
            begin, end = max(first, shard.start), min(first + rows, shard.stop)
            if begin < end:
                found.append(_Portion(MetadataIndex(name, chunk.offsets), begin - first, end - first, begin, put))
        return found

    def _in_motion(self, motions: Sequence[dict[str, Any]], classes: Tensor) -> list[_Portion]:
        """Chunks with momentum of any of this shard's rows."""
        shard, found, before = self._head.class_shard, [], 0
        is_here = (classes >= shard.start) & (classes < shard.stop)
        for motion in motions:
            name, count = motion["momentum"][TENSOR], motion["classes"]["size"][0]
            chunks = row_chunks(self._reader, name, self._head.embedding_dim) if count else []
            if sum(chunk.sizes[0] for chunk in chunks) != count:
                raise DamagedCheckpointError(f"{name} has not a row for each of its classes; use another checkpoint")
            for chunk in chunks:
                first, rows = before + chunk.offsets[0], chunk.sizes[0]
                if bool(is_here[first : first + rows].any()):
                    index = MetadataIndex(name, chunk.offsets)
                    found.append(_Portion(index, 0, rows, first, CenterLoading.put_motion))
            before += count
        return found
