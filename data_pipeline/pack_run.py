"""One pack under way: items in order to record shards, progress to the journal, all of it published at the end."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from data_pipeline.draft import Draft
from data_pipeline.errors import DataError
from data_pipeline.identity_names import IDENTITY_NAMES
from data_pipeline.ordered_pool import in_order
from data_pipeline.pack_encode import encode_images
from data_pipeline.pack_journal import Journal, write_journal
from data_pipeline.pack_listing import SUFFIXES, Item, Listing
from data_pipeline.properties import FILE_NAME, Properties, write_properties
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedWriter

_IMAGES_PER_JOB = 16
_SKIPPED = "left_out.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """How images are stored: pixels of a side, JPEG quality of those encoded anew, the cut into record shards.

    skip_bad: leave out unreadable images and empty folders instead of stopping. plain: im2rec's layout.
    """

    image_size: int = 112
    quality: int = 95
    skip_bad: bool = False
    plain: bool = False
    cut: ShardCut = field(default_factory=ShardCut)

    def __post_init__(self) -> None:
        if self.image_size < 1 or not 1 <= self.quality <= 100:
            raise DataError(
                f"image size {self.image_size} with quality {self.quality}: sizes start at 1 pixel, "
                "qualities are 1 to 100"
            )


@dataclass(frozen=True, slots=True)
class Packed:
    """What a pack wrote: the first record file, counts, and one line for each image left out."""

    records: Path
    identities: int
    images: int
    skipped: list[str]


class PackRun:
    """One pack under way, from where its journal stands to the end; ``run`` publishes it."""

    def __init__(
        self, draft: Draft, listing: Listing, options: PackOptions, journal: Journal, workers: int,
        checkpoint_seconds: float, source: Path,
    ) -> None:  # fmt: skip
        self._draft, self._listing, self._options, self._source = draft, listing, options, source
        self._start, self._workers, self._checkpoint_seconds = journal, workers, checkpoint_seconds
        self._folder = draft.folder
        self._identities = journal.identities
        self._names = _continued(self._folder / IDENTITY_NAMES, journal.names_bytes)
        self._skipped = _continued(self._folder / _SKIPPED, journal.skipped_bytes)
        self._known = _names_in(self._folder / IDENTITY_NAMES)

    def run(self) -> Packed:
        """Write all records and give them their names.

        Raises:
            DataError: an image cannot be read and may not be left out, or nothing is left.
        """
        total = self._listing.count
        writer = ShardedWriter(
            self._folder, cut=self._options.cut, total=total, plain=self._options.plain, mark=self._start.writer
        )
        saved = time.monotonic()
        with (
            self._names, self._skipped, writer,
            tqdm(total=total, initial=self._start.items, unit="image", desc="packing", disable=None) as progress,
        ):  # fmt: skip
            for place, (item, encoded) in enumerate(self._encoded(), start=self._start.items):
                if isinstance(encoded, bytes):
                    writer.write(self._identity(item), encoded, place)
                elif self._options.skip_bad:
                    self._skipped.write(encoded.encode(errors="surrogateescape") + b"\n")
                else:
                    raise DataError(f"{encoded}: remove it or add --skip-bad")
                progress.update()
                if time.monotonic() - saved >= self._checkpoint_seconds:
                    self._save(writer, place + 1)
                    saved = time.monotonic()
            self._flush()
            skipped = self._lines_skipped()
            if not writer.num_images:
                raise DataError(
                    f"{self._source} holds no folder with readable images ({len(skipped)} left out): give one that "
                    f"holds a folder per identity with {', '.join(sorted(SUFFIXES))} files, or a list file"
                )
        return self._publish(writer, skipped)

    def _encoded(self) -> Iterator[tuple[Item, bytes | str]]:
        """Each item from where the journal stands, with its JPEG, or why there is none."""
        image_size, quality = self._options.image_size, self._options.quality
        waiting: list[tuple[Item, ...]] = []

        def jobs() -> Iterator[tuple[list[str], int, int]]:
            listed = self._listing.items(self._start.items)
            while items := tuple(islice(listed, _IMAGES_PER_JOB)):
                waiting.append(items)
                yield [item.path for item in items], image_size, quality

        for results in in_order(encode_images, jobs(), self._workers):
            for item, result in zip(waiting.pop(0), results, strict=True):
                if not item.path:
                    result = f"{self._source / item.name} holds no images"
                yield item, result

    def _identity(self, item: Item) -> int:
        if item.number is not None:
            self._identities = max(self._identities, item.number + 1)
            return item.number
        number = self._known.get(item.name)
        if number is None:
            number = self._known[item.name] = self._identities
            self._identities += 1
            self._names.write(f"{number}\t{item.name}\n".encode(errors="surrogateescape"))
        return number

    def _save(self, writer: ShardedWriter, items: int) -> None:
        self._flush()
        write_journal(
            self._folder,
            Journal(
                self._start.task, self._start.digest, items, self._identities,
                self._names.tell(), self._skipped.tell(), writer.mark(),
            ),
        )  # fmt: skip

    def _flush(self) -> None:
        for stream in (self._names, self._skipped):
            stream.flush()
            os.fsync(stream.fileno())

    def _lines_skipped(self) -> list[str]:
        return (self._folder / _SKIPPED).read_text("utf-8", "surrogateescape").splitlines()

    def _publish(self, writer: ShardedWriter, skipped: list[str]) -> Packed:
        size = self._options.image_size
        write_properties(self._folder, Properties(self._identities, size, size))
        names = writer.names() | {FILE_NAME: FILE_NAME}
        if self._known:
            names[IDENTITY_NAMES] = IDENTITY_NAMES
        self._draft.publish(names)
        return Packed(self._draft.output / names["0.rec"], self._identities, writer.num_images, skipped)


def _continued(path: Path, size: int) -> BinaryIO:
    """A file opened to go on at ``size`` bytes, whatever was written behind that."""
    stream = path.open("r+b" if path.exists() else "w+b")
    stream.truncate(size)
    stream.seek(size)
    return stream


def _names_in(path: Path) -> dict[str, int]:
    lines = path.read_text("utf-8", "surrogateescape").split("\n")[:-1]
    return {name: int(number) for number, _, name in (line.partition("\t") for line in lines)}
