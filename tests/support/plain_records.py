"""Record files as im2rec makes them, written without the code under test: no header record, any keys, any gaps."""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.recordio import frame


def write_plain(
    path: Path, contents: Sequence[bytes], keys: Sequence[int] | None = None, *, index: bool = True
) -> Path:
    """The framed ``contents`` one after another; keys from 0 on unless given, in this order in the ``.idx`` too."""
    offset, lines = 0, []
    for key, content in zip(range(len(contents)) if keys is None else keys, contents, strict=True):
        lines.append(f"{key}\t{offset}\n")
        offset += len(frame(content))
    path.write_bytes(b"".join(frame(content) for content in contents))
    if index:
        path.with_suffix(".idx").write_text("".join(lines))
    return path


def write_at(path: Path, contents: dict[int, bytes], keys: Sequence[int]) -> Path:
    """A sparse file: each content framed at its offset, holes between, with the index of ``keys`` in this order."""
    with path.open("wb") as stream:
        for offset, content in contents.items():
            stream.seek(offset)
            stream.write(frame(content))
    lines = (f"{key}\t{offset}\n" for key, offset in zip(keys, contents, strict=True))
    path.with_suffix(".idx").write_text("".join(lines))
    return path
