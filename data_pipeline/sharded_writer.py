"""Writes a data set as one or several record shards, into a folder that nobody reads yet."""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from data_pipeline.errors import DataError
from data_pipeline.image_records import ImageRecords, Mark, check_image
from data_pipeline.record_set import DALI_INDEX, shard_name
from data_pipeline.record_shard import RecordShard
from data_pipeline.shard_cut import ShardCut

_CHUNK = 1 << 16  # index lines made together


class ShardedMark(NamedTuple):
    """A place to continue from: complete shards, images in all, the part the last item fell into, the open shard."""

    complete: int
    images: int
    group: int
    open_shard: Mark | None


class ShardedWriter:
    """Writes shard after shard into ``folder`` as ``0.rec``, ``0.idx``, ``1.rec``, ...; the cut says where one ends.

    Each shard is a record file of its own, as ``RecordWriter`` lays it out (or ``plain``), with its own keys;
    identities are those of the whole data set. Several shards get a common index of their images besides, for DALI's
    ``readers.mxnet``, which takes one index only: offsets there run on through the files.

    ``total`` is the number of items that will be offered; it places the cuts when a number of shards was asked for.
    ``close()`` completes the last shard; ``names()`` are the names that the files are to get. ``mark()`` and the
    argument ``mark`` let another process continue, byte for byte.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cut: ShardCut | None = None,
        total: int = 0,
        plain: bool = False,
        mark: ShardedMark | None = None,
    ) -> None:
        self._folder, self._total, self._plain = folder, total, plain
        self._cut = cut or ShardCut()
        self._cut.check_total(total)
        self._complete, self._images, self._group, open_shard = mark or ShardedMark(0, 0, 0, None)
        self._streams: list[BinaryIO] = []
        self._content: ImageRecords | None = None
        if open_shard is not None:
            self._content = self._opened("r+b", Mark(*open_shard))

    @property
    def num_images(self) -> int:
        """Images written so far."""
        return self._images

    def write(self, identity: int, jpeg: bytes, item: int | None = None) -> None:
        """Append an image, number ``item`` of ``total`` (the number of images before it, where none was left out).

        Raises:
            DataError: identity out of range, or nothing in ``jpeg``.
        """
        check_image(jpeg, self._images, identity, self._folder)
        group = self._cut.group(self._images if item is None else item, self._total)
        content = self._content
        if content is not None and (
            group != self._group or self._cut.is_full(content.num_images, content.size_with(len(jpeg)))
        ):
            self._finish()
            content = None
        if content is None:
            content = self._content = self._opened("w+b")
        content.add(int(identity), bytes(jpeg))
        self._group = group
        self._images += 1

    def mark(self) -> ShardedMark:
        """Bring everything to the disk and say where it stands."""
        return ShardedMark(
            self._complete, self._images, self._group, None if self._content is None else self._content.mark()
        )

    def close(self) -> None:
        """Complete the last shard and write the common index.

        Raises:
            DataError: no image was written.
        """
        if not self._images:
            raise DataError(f"{self._folder}: no image was written: nothing to publish")
        if self._content is not None:
            self._finish()
        if self._complete > 1:
            self._write_common_index()

    def names(self) -> dict[str, str]:
        """Name in the folder -> name in the data set, of all files; the indexes come first."""
        made = {f"{number}.rec": shard_name(number, self._complete) for number in range(self._complete)}
        common = {DALI_INDEX: DALI_INDEX} if self._complete > 1 else {}
        return common | {
            str(Path(own).with_suffix(suffix)): str(Path(name).with_suffix(suffix))
            for suffix in (".idx", ".rec")
            for own, name in made.items()
        }

    def discard(self) -> None:
        """Close the files of an unfinished shard; what is in the folder is left to its owner."""
        streams, self._streams, self._content = self._streams, [], None
        for stream in streams:
            with suppress(OSError):  # on a full disk the last bytes cannot be written; nobody wants them
                stream.close()

    def _opened(self, mode: str, mark: Mark | None = None) -> ImageRecords:
        for suffix in ("rec", "idx", "runs"):
            self._streams.append((self._folder / f"{self._complete}.{suffix}").open(mode))  # type: ignore[arg-type]
        records, index, runs = self._streams
        return ImageRecords(records, index, runs, plain=self._plain, mark=mark)

    def _finish(self) -> None:
        assert self._content is not None
        self._content.finish()
        self._content = None
        for stream in self._streams[:2]:
            stream.flush()
            os.fsync(stream.fileno())
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.close()
        self._complete += 1

    def _write_common_index(self) -> None:
        first_byte = key = 0
        with (self._folder / DALI_INDEX).open("wb") as index:
            for number in range(self._complete):
                shard = RecordShard(self._folder / f"{number}.rec")
                shard.close()
                for start in range(0, len(shard), _CHUNK):
                    offsets = (shard.offsets.at(slice(start, start + _CHUNK)) + first_byte).tolist()
                    index.writelines(b"%d\t%d\n" % line for line in enumerate(offsets, start=key))
                    key += len(offsets)
                first_byte += shard.path.stat().st_size
            index.flush()
            os.fsync(index.fileno())

    def __enter__(self) -> "ShardedWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.discard()
