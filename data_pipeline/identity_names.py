"""``identities.tsv`` in a data set's folder: who is behind each number, so that people are known when numbers change.

Lines ``identity<tab>name``, UTF-8, in any order. A name is any text without tab and line end; two identities never
share one, and names are the same where their bytes are. An empty line is passed over, a carriage return in front of a
line feed belongs to the line end. A data set without the file goes by numbers: identity 17 is named ``17``.
"""

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.pending_file import PendingFile

IDENTITY_NAMES = "identities.tsv"
LONGEST_NAME = 1024  # bytes
_LONGEST_LINE = LONGEST_NAME + 24  # number, tab and line end; a file of another kind may have no line end at all
_CHUNK = 1 << 16  # lines handled together


class IdentityNames:
    """Names of some identities, each once: 24 bytes and the name's own for each.

    ids: [n] int64, ascending. ``source`` names where they come from in messages.

    Raises:
        DataError: two identities share a name.
    """

    def __init__(self, ids: NDArray[np.int64], ends: NDArray[np.int64], text: bytes, source: str) -> None:
        """ends: [n] int64, where each name ends in ``text``, all names one after another."""
        self.ids = ids
        self.source = source
        self._ends = ends
        self._text = text
        self._refuse_shared_names()

    @classmethod
    def of(cls, ids: Sequence[int] | NDArray[np.int64], names: Sequence[bytes], source: str) -> "IdentityNames":
        """From ascending ids and their names in UTF-8."""
        ends = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)), dtype=np.int64)
        return cls(np.asarray(ids, dtype=np.int64), ends, b"".join(names), source)

    @classmethod
    def numbers(cls, ids: Sequence[int] | NDArray[np.int64], source: str) -> "IdentityNames":
        """Identities that go by their numbers."""
        ids = np.asarray(ids, dtype=np.int64)
        return cls.of(ids, [b"%d" % number for number in ids.tolist()], source)

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self, place: int) -> bytes:
        """Name number ``place``, from 0, in UTF-8."""
        return self._text[self._ends[place - 1] if place else 0 : self._ends[place]]

    def name(self, place: int) -> str:
        """Name number ``place``, from 0."""
        return self.encoded(place).decode()

    def name_of(self, identity: int) -> str | None:
        """The name of an identity; None where it has none."""
        place = int(np.searchsorted(self.ids, identity))
        return self.name(place) if place < len(self) and self.ids[place] == identity else None

    def places_in(self, other: "IdentityNames") -> NDArray[np.int64]:
        """For each name here the place of the same name in ``other``, -1 where it has none: [n] int64."""
        order = np.argsort(other._keys, kind="stable")
        keys = other._keys[order]
        places = np.searchsorted(keys, self._keys)
        found = np.full(len(self), -1, dtype=np.int64)
        candidates = np.flatnonzero(places < len(keys))
        candidates = candidates[keys[places[candidates]] == self._keys[candidates]]
        for mine in candidates.tolist():
            # Equal keys are equal names, nearly always: the names themselves decide.
            name, key, place = self.encoded(mine), self._keys[mine], int(places[mine])
            while place < len(keys) and keys[place] == key:
                if other.encoded(int(order[place])) == name:
                    found[mine] = order[place]
                    break
                place += 1
        return found

    def select(self, places: NDArray[np.int64], ids: NDArray[np.int64]) -> "IdentityNames":
        """The names at ``places`` [m], none twice, as those of the identities ``ids`` [m], ascending."""
        return IdentityNames.of(ids, [self.encoded(place) for place in places.tolist()], self.source)

    def lines(self) -> Iterator[bytes]:
        """The content of the file, ascending by identity, some lines at a time."""
        for start in range(0, len(self), _CHUNK):
            ids = self.ids[start : start + _CHUNK].tolist()
            yield b"".join(b"%d\t%b\n" % (number, self.encoded(start + row)) for row, number in enumerate(ids))

    @cached_property
    def sha256(self) -> str:
        """Of the file's content by identity: the same for the same names, in whatever order a file had them."""
        digest = hashlib.sha256()
        for lines in self.lines():
            digest.update(lines)
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with PendingFile(path) as pending:
            pending.stream.writelines(self.lines())

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        return np.fromiter((hash(self.encoded(place)) for place in range(len(self))), np.int64, len(self))

    def _refuse_shared_names(self) -> None:
        order = np.argsort(self._keys, kind="stable")
        keys = self._keys[order]
        seen: dict[bytes, int] = {}
        for place in np.flatnonzero(keys[1:] == keys[:-1]).tolist():
            for each in (int(order[place]), int(order[place + 1])):
                other = seen.setdefault(self.encoded(each), each)
                if other != each:
                    first, second = sorted((int(self.ids[other]), int(self.ids[each])))
                    raise DataError(
                        f"{self.source}: identities {first} and {second} are both named {self.name(each)!r}: "
                        "give each a name of its own, or make them one identity"
                    )


def read_names(path: Path, *, num_identities: int) -> IdentityNames | None:
    """The names in a file; None where it does not exist. ``num_identities`` of the data set bounds what is read.

    Raises:
        DataError: names the first line that is not ``identity<tab>name`` in UTF-8, whose identity is not in
            [0, num_identities), or that names an identity or a person for the second time.
    """
    ids: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    texts: list[bytes] = []
    count = 0
    for numbers, names in _parsed(path, num_identities):
        count += len(numbers)
        if count > num_identities:
            raise DataError(
                f"{path}: it has more lines than the data set has identities ({num_identities}): "
                "an identity is named twice, or the file belongs to another data set"
            )
        ids.append(np.array(numbers, dtype=np.int64))
        lengths.append(np.fromiter(map(len, names), np.int64, len(names)))
        texts.append(b"".join(names))
    if not ids:
        if path.exists():
            raise DataError(f"{path} holds no names: write lines 'identity<tab>name', or remove it")
        return None
    return _sorted(np.concatenate(ids), np.concatenate(lengths), b"".join(texts), str(path))


def join_names(parts: Sequence[tuple[IdentityNames, int]], source: str) -> IdentityNames:
    """Names of several data sets as one, those of each with its number added to all ids.

    Raises:
        DataError: an identity has two names, or two identities share one.
    """
    ids = np.concatenate([names.ids + offset for names, offset in parts])
    lengths = np.concatenate([np.diff(names._ends, prepend=0) for names, _ in parts])
    return _sorted(ids, lengths, b"".join(names._text for names, _ in parts), source, same_allowed=True)


def data_set_names(paths: Sequence[Path], identities: NDArray[np.int64], num_identities: int) -> IdentityNames | None:
    """Names of the identities of a data set made of the record files ``paths``, from the files beside these.

    identities: [images], of every image, -1 for one that cannot be read. None where no file is there: the identities go
    by their numbers.

    Raises:
        DataError: as :func:`read_names`; two files contradict each other; an identity that has images has no name.
    """
    files = list(dict.fromkeys(path.parent / IDENTITY_NAMES for path in paths))
    read = [(names, 0) for file in files if (names := read_names(file, num_identities=num_identities)) is not None]
    if not read:
        return None
    names = read[0][0] if len(read) == 1 else join_names(read, " and ".join(each.source for each, _ in read))
    unnamed = np.zeros(num_identities, dtype=bool)
    unnamed[identities[identities >= 0]] = True
    unnamed[names.ids] = False
    missing = np.flatnonzero(unnamed)
    if len(missing):
        raise DataError(
            f"{names.source}: identity {missing[0]} has images but no line ({len(missing)} such identities): "
            "add 'identity<tab>name' for each, or remove the file to have identities go by their numbers"
        )
    return names


def _parsed(path: Path, num_identities: int) -> Iterator[tuple[list[int], list[bytes]]]:
    """Numbers and names of the lines, some at a time; nothing where there is no file."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"cannot open {path}: {error.strerror}") from error
    numbers: list[int] = []
    names: list[bytes] = []
    with stream:
        if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            stream.seek(0)
        try:
            for place, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), start=1):
                number, tab, name = line.removesuffix(b"\n").removesuffix(b"\r").partition(b"\t")
                # isdigit() of bytes knows ASCII digits alone.
                if not (
                    number.isdigit() and name and len(number) < 20 and len(name) <= LONGEST_NAME and _is_text(name)
                ):
                    if not number and not tab:
                        continue
                    raise DataError(f"{path}: line {place} ({line[:80]!r}) is not 'identity<tab>name': {_why(line)}")
                identity = int(number)
                if identity >= num_identities:
                    raise DataError(
                        f"{path}: line {place} names identity {identity}, the data set has {num_identities} from 0 on: "
                        "the file belongs to another data set, or the line is wrong"
                    )
                numbers.append(identity)
                names.append(name)
                if len(numbers) == _CHUNK:
                    yield numbers, names
                    numbers, names = [], []
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
    if numbers:
        yield numbers, names


def _is_text(name: bytes) -> bool:
    """UTF-8 without tab and line end."""
    if b"\t" in name or b"\r" in name:
        return False
    if name.isascii():
        return True
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _why(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8 text; convert the file"
    if len(line) > _LONGEST_LINE or len(line.rstrip(b"\r\n").partition(b"\t")[2]) > LONGEST_NAME:
        return f"names have at most {LONGEST_NAME} bytes"
    return "give a whole number, one tab and a name without tabs"


def _sorted(
    ids: NDArray[np.int64], lengths: NDArray[np.int64], text: bytes, source: str, *, same_allowed: bool = False
) -> IdentityNames:
    """By identity. ``same_allowed``: an identity may come twice with one name."""
    ends = np.cumsum(lengths, dtype=np.int64)
    if np.any(ids[1:] <= ids[:-1]):
        order = np.argsort(ids, kind="stable")
        starts = ends - lengths
        names = [text[starts[place] : ends[place]] for place in order.tolist()]
        ids = ids[order]
        again = np.flatnonzero(ids[1:] == ids[:-1]) + 1
        for place in again.tolist():
            if not same_allowed or names[place] != names[place - 1]:
                one, other = names[place - 1].decode(), names[place].decode()
                raise DataError(
                    f"{source}: identity {ids[place]} is named twice, {one!r} and {other!r}: keep one line for each"
                    + ("; where these are other people, keep the identities apart" if same_allowed else "")
                )
        if len(again):
            kept = np.delete(np.arange(len(ids)), again)
            ids, names = ids[kept], [names[place] for place in kept.tolist()]
        return IdentityNames.of(ids, names, source)
    return IdentityNames(ids, ends, text, source)
