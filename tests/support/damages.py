"""What can happen to a file after it was written: each changes, or removes, the file at ``path``."""

from collections.abc import Callable
from pathlib import Path


def _cut(share: float) -> Callable[[Path], None]:
    """Keep that share of the bytes; all but the last one at 1.0."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: min(int(len(content) * share), len(content) - 1)])

    return damage


def _flip(share: float) -> Callable[[Path], None]:
    """Turn one bit round, of the byte at that share of the length."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[min(int(len(content) * share), len(content) - 1)] ^= 1
        path.write_bytes(content)

    return damage


def _append(more: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("ab") as file:
            file.write(more)

    return damage


def _zero_a_page(path: Path) -> None:
    """As a file system does that has lost power between a file's length and its content."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    page = slice(middle, min(middle + 4096, len(content)))
    content[page] = bytes(len(content[page]))
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "torn at the first byte": lambda path: path.write_bytes(path.read_bytes()[:1]) and None,
    "torn in the middle": _cut(0.5),
    "torn at the last byte": _cut(1.0),
    "a byte appended": _append(b"\0"),
    "a line appended": _append(b"{}\n"),
    "a bit of the first byte": _flip(0.0),
    "a bit in the middle": _flip(0.5),
    "a bit of the last byte": _flip(1.0),
    "a page of zeros": _zero_a_page,
}
