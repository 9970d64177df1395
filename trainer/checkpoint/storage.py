"""Files of raw little-endian numbers and a JSON index of what lies where: a checkpoint that cannot execute code.

torch.distributed.checkpoint's own file format is made of pickles. This one has a file per rank, chunk after chunk, and
of every chunk its place, size, type and SHA-256: a file torn or altered at any byte is recognised when it is read.
"""

import hashlib
import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from trainer.errors import ConfigError

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
PIECE_BYTES = 1 << 20  # read at a time where nothing is kept
assert sys.byteorder == "little", "the files hold little-endian numbers"


class DamagedCheckpointError(ConfigError):
    """A file of a checkpoint is missing, too short, or not what was written."""


@dataclass(frozen=True)
class Place:
    """Where a chunk lies: bytes [begin, begin + size) of ``file``, with their checksum."""

    file: str
    begin: int
    size: int
    sha256: str


def file_lengths(ends: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Bytes of each file, from the (file, end) of all chunks."""
    lengths: dict[str, int] = {}
    for file, end in ends:
        lengths[file] = max(lengths.get(file, 0), end)
    return lengths


class RawWriter(StorageWriter):
    """Writes this rank's chunks to ``folder/file``; ``index`` is what a reader needs, on the coordinating rank.

    ``cancel`` may be called by another thread: writing then ends with CancelledError before the next chunk.
    """

    def __init__(self, folder: Path, file: str) -> None:
        self._path = folder / file
        self._cancelled = threading.Event()
        self.index: dict[str, Any] = {}

    @property
    def file(self) -> str:
        """Name of the file."""
        return self._path.name

    def cancel(self) -> None:
        """Write no more."""
        self._cancelled.set()

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A writer is made for one checkpoint."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up: the folder is there."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As planned."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """As planned."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write, sync, and tell where everything lies."""
        results = []
        try:
            with self._path.open("wb") as file:
                for item in plan.items:
                    if self._cancelled.is_set():
                        raise CancelledError
                    tensor = planner.resolve_data(item)
                    assert isinstance(tensor, torch.Tensor), "tensors only"
                    content = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
                    place = Place(self._path.name, file.tell(), len(content), hashlib.sha256(content).hexdigest())
                    file.write(content)
                    results.append(WriteResult(item.index, place.size, place))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None  # a failed write names no file
        written: Future[list[WriteResult]] = Future()
        written.set_result(results)
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Make the index, once all ranks have written."""
        places = {result.index: result.storage_data for of_rank in results for result in of_rank}
        for name, saved in metadata.state_dict_metadata.items():
            assert isinstance(saved, TensorStorageMetadata), "tensors only"
            chunks = [
                {
                    "offsets": list(chunk.offsets),
                    "sizes": list(chunk.sizes),
                    **asdict(places[MetadataIndex(name, chunk.offsets)]),
                }
                for chunk in saved.chunks
            ]
            dtype = str(saved.properties.dtype).removeprefix("torch.")
            self.index[name] = {"dtype": dtype, "size": list(saved.size), "chunks": chunks}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """A writer is made for one checkpoint."""
        return False

    def storage_meta(self) -> StorageMeta | None:
        """Nothing beyond the index."""
        return None


class RawReader(StorageReader):
    """Reads what :class:`RawWriter` wrote into ``folder``, checking every chunk it reads.

    index: as the writer made it, from an untrusted file. Raises DamagedCheckpointError, also while reading.
    """

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self._folder = folder
        self._places: dict[MetadataIndex, tuple[Place, torch.dtype, torch.Size]] = {}
        try:
            self.metadata = Metadata({name: self._tensor(name, entry) for name, entry in index.items()})
            self._check_lengths()
        except DamagedCheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedCheckpointError(f"{folder}: its index is damaged ({error}); use another checkpoint") from None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A reader is made for one checkpoint."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """From the index."""
        return self.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """As planned."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """As planned."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill what was planned."""
        for item in plan.items:
            target = planner.resolve_tensor(item)
            target.copy_(self._wanted(item))
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _wanted(self, item: ReadItem) -> torch.Tensor:
        """The part of a chunk that was planned. Nobody else holds the chunk, so its room is free for the next one."""
        source = self.chunk(item.storage_index)
        for dim, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
            source = source.narrow(dim, offset, length)
        return source

    def chunk(self, index: MetadataIndex) -> torch.Tensor:
        """One chunk's elements, checked."""
        place, dtype, sizes = self._places[index]
        content = bytearray(place.size)
        with self._opened(place) as file:
            file.readinto(content)  # where the file is too short, the rest are zeros
        self._compare(index, hashlib.sha256(content))
        return torch.frombuffer(content, dtype=dtype).view(sizes)

    def check(self, index: MetadataIndex) -> None:
        """Read one chunk, a piece at a time, only to see that it is what was written."""
        place, _, _ = self._places[index]
        piece = memoryview(bytearray(min(place.size, PIECE_BYTES)))
        found, left = hashlib.sha256(), place.size
        with self._opened(place) as file:
            while left and (count := file.readinto(piece[:left])):
                found.update(piece[:count])
                left -= count
        self._compare(index, found)

    @contextmanager
    def _opened(self, place: Place) -> Iterator[BufferedReader]:
        """The file, at the chunk's beginning."""
        path = self._folder / place.file
        try:
            with path.open("rb") as file:
                file.seek(place.begin)
                yield file
        except OSError as error:
            raise DamagedCheckpointError(f"{path}: {error.strerror}; use another checkpoint") from None

    def _compare(self, index: MetadataIndex, found: "hashlib._Hash") -> None:
        place, _, _ = self._places[index]
        if found.hexdigest() != place.sha256:
            path = self._folder / place.file
            raise DamagedCheckpointError(
                f"{path}: {index.fqn} at byte {place.begin} is damaged; use another checkpoint"
            )

    def verify(self) -> int:
        """Read and check everything; returns the number of bytes."""
        for index in self._places:
            self.check(index)
        return sum(place.size for place, _, _ in self._places.values())

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """A reader is made for one checkpoint."""
        return False

    def _tensor(self, name: str, entry: dict[str, Any]) -> TensorStorageMetadata:
        dtype, size = DTYPES[entry["dtype"]], torch.Size(entry["size"])
        chunks = []
        for each in entry["chunks"]:
            chunk = ChunkStorageMetadata(torch.Size(each["offsets"]), torch.Size(each["sizes"]))
            place = Place(each["file"], int(each["begin"]), int(each["size"]), str(each["sha256"]))
            fits = len(chunk.offsets) == len(chunk.sizes) == len(size) and all(
                offset >= 0 and length >= 0 and offset + length <= whole
                for offset, length, whole in zip(chunk.offsets, chunk.sizes, size, strict=True)
            )
            if not fits or place.size != math.prod(chunk.sizes) * dtype.itemsize or place.begin < 0:
                raise ValueError(f"a chunk of {name} does not fit it")
            if Path(place.file).name != place.file:
                raise ValueError(f"{place.file!r} is outside the folder")
            self._places[MetadataIndex(name, chunk.offsets)] = (place, dtype, chunk.sizes)
            chunks.append(chunk)
        # Whoever allocates by this size is then bounded by the files.
        if sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(size):
            raise ValueError(f"the chunks of {name} are not all of it")
        return TensorStorageMetadata(TensorProperties(dtype=dtype), size, chunks)

    def _check_lengths(self) -> None:
        """Every file ends where its last chunk does: what was appended is damage like what was cut off."""
        ends = ((place.file, place.begin + place.size) for place, _, _ in self._places.values())
        for name, length in file_lengths(ends).items():
            path = self._folder / name
            try:
                found = path.stat().st_size
            except OSError as error:
                raise DamagedCheckpointError(f"{path}: {error.strerror}; use another checkpoint") from None
            if found != length:
                raise DamagedCheckpointError(
                    f"{path}: ends at byte {found} instead of {length}; use another checkpoint"
                )
