"""List files of images to pack: im2rec's ``.lst`` and a simple form of path and name, told apart by their fields.

im2rec: ``index<tab>label<tab>path``; more labels may stand between, as for detection: the first is the identity.
Simple: ``path<tab>identity name``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import DataError
from data_pipeline.record import MAX_IDENTITY

_FORMS = "give lines 'index<tab>label<tab>path' (im2rec) or 'path<tab>identity name'"

_LONGEST_LINE = 1 << 16  # bytes; a file that is no list may have no line end at all


class Listed(NamedTuple):
    """One line: the identity's number (None: it goes by its name), its name (empty for a number), the path."""

    number: int | None
    name: str
    path: str


def read_list(path: Path) -> Iterator[Listed]:
    """The images of a list file, in its order. Empty lines are passed over.

    Raises:
        DataError: names the first line that is of neither form, or of another form than the first line.
    """
    form = 0
    with path.open("rb") as stream:
        for number, raw in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), start=1):
            if len(raw) > _LONGEST_LINE:
                raise DataError(f"{path}: line {number} is longer than {_LONGEST_LINE} bytes: {_FORMS}")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise DataError(f"{path}: line {number} is not UTF-8 text: {_FORMS}") from None
            if not line.strip():
                continue
            fields = line.split("\t")
            where = f"{path}: line {number} ({line[:80]!r})"
            if len(fields) < 2 or not fields[0].strip() or not fields[-1].strip() or "\0" in line:
                raise DataError(f"{where} is not an image and its identity: {_FORMS}")
            this_form = min(len(fields), 3)
            if form not in (0, this_form):
                raise DataError(f"{where} has {len(fields)} fields, unlike the lines before it: {_FORMS}")
            form = this_form
            if form == 3:
                yield Listed(_identity(fields, where), "", fields[-1])
            elif not fields[1].isprintable():
                raise DataError(f"{where} has a name with unprintable characters: rename the identity")
            else:
                yield Listed(None, fields[1], fields[0])


def _identity(fields: list[str], where: str) -> int:
    """The identity of an im2rec line: its first label, written as a whole number or as 12.000000."""
    if not fields[0].strip().isascii() or not fields[0].strip().isdigit():
        raise DataError(f"{where} begins with {fields[0]!r}, which is no index: {_FORMS}")
    whole, _, fraction = fields[1].strip().partition(".")
    if whole.isascii() and whole.isdigit() and not fraction.strip("0") and len(whole) < 20:
        identity = int(whole)
        if identity < MAX_IDENTITY:
            return identity
    raise DataError(f"{where} has the label {fields[1]!r}: identities are whole numbers from 0 below 2**44")
