"""What a source holds, written down once: millions of files cost memory in no later step, and changes show."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from data_pipeline.errors import DataError
from data_pipeline.pack_list import Listed, read_list

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class Item(NamedTuple):
    """One image to pack; ``path`` is empty for an identity without images. ``number`` and ``name`` as ``Listed``."""

    number: int | None
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A file of ``count`` items; ``digest`` changes with any item, and with size or time of any image file."""

    file: Path
    root: Path
    count: int
    digest: str

    def items(self, start: int = 0) -> Iterator[Item]:
        """The items from ``start`` on, read along."""
        root = str(self.root)
        with self.file.open("rb") as stream:
            for place, entry in enumerate(_entries(stream)):
                if place >= start:
                    number, name, path = entry.split(b"\t", 2)
                    yield Item(
                        int(number) if number else None,
                        os.fsdecode(name),
                        _joined(root, os.fsdecode(path)) if path else "",
                    )


def list_images(source: Path, root: Path | None, file: Path) -> Listing:
    """Write down in ``file`` what is to be packed from ``source``: a folder of folders, or a list file.

    Paths in a list file are relative to ``root`` (None: the folder of the list file).

    Raises:
        DataError: an item cannot be listed, or a list file is of no known form.
    """
    root = source if source.is_dir() else root or source.parent
    digest, count = hashlib.blake2b(digest_size=16), 0
    found = read_list(source) if source.is_file() else _folders(source)
    with file.open("wb") as stream:
        for listed in tqdm(found, unit="image", desc="listing", disable=None):
            number = b"" if listed.number is None else b"%d" % listed.number
            entry = b"\t".join((number, os.fsencode(listed.name), os.fsencode(listed.path)))
            stream.write(entry + b"\0")
            digest.update(entry + _state(_joined(str(root), listed.path)) if listed.path else entry)
            digest.update(b"\0")
            count += 1
    return Listing(file, root, count, digest.hexdigest())


def _folders(folder: Path) -> Iterator[Listed]:
    """The image files of each folder in ``folder``, both sorted by name; an empty path for a folder without any."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        if not name.isprintable():
            unprintable = f"{str(folder / name)!r}: a name with unprintable characters cannot be listed"
            raise DataError(f"{unprintable}: rename the folder")
        files = sorted(entry.name for entry in os.scandir(folder / name) if _is_image(entry))
        yield from (Listed(None, name, f"{name}/{file}") for file in files)
        if not files:
            yield Listed(None, name, "")


def _is_image(entry: "os.DirEntry[str]") -> bool:
    _, suffix = os.path.splitext(entry.name)  # noqa: PTH122
    return not entry.name.startswith(".") and suffix.lower() in SUFFIXES and entry.is_file()


# Text, not Paths: those keep memory of every name that they ever had, and there may be millions.


def _joined(root: str, path: str) -> str:
    return os.path.join(root, path)  # noqa: PTH118


def _state(path: str) -> bytes:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:  # packing tells
        return b"\tabsent"
    return b"\t%d\t%d" % (found.st_size, found.st_mtime_ns)


def _entries(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(1 << 16):
        *whole, rest = (rest + block).split(b"\0")
        yield from whole
    assert not rest
