"""The identities of several data sets in one space of numbers: apart, as they are, or by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.identity_names import IdentityNames, data_set_names, join_names
from data_pipeline.reader import RecordReader

IdentitySpaces = Literal["separate", "shared", "named"]


@dataclass(frozen=True, eq=False, slots=True)
class MergedIdentities:
    """identities: [images] int64, of all images; num_identities: of the whole; names: None where numbers are names.

    remarks: of each data set, what became of its numbers.
    """

    identities: NDArray[np.int64]
    num_identities: int
    names: IdentityNames | None
    remarks: list[str]


def merge_spaces(readers: Sequence[RecordReader], spaces: IdentitySpaces) -> MergedIdentities:
    """As :class:`data_pipeline.record_inputs.RecordInputs` says.

    Raises:
        DataError: unreadable labels, or names that contradict each other.
    """
    sizes = [max(reader.num_identities, int(reader.identities.max()) + 1) for reader in readers]
    names = [data_set_names(reader.paths, reader.identities, size) for reader, size in zip(readers, sizes, strict=True)]
    if spaces == "named":
        return _by_name(readers, sizes, names)
    shared = spaces == "shared"
    offsets = [0] * len(sizes) if shared else [0, *np.cumsum(sizes[:-1]).tolist()]
    return MergedIdentities(
        _joined([reader.identities + offset for reader, offset in zip(readers, offsets, strict=True)]),
        max(sizes) if shared else sum(sizes),
        _names_of_all(readers, names, offsets, shared),
        [f"identities + {offset}" for offset in offsets],
    )


def _names_of_all(
    readers: Sequence[RecordReader], names: Sequence[IdentityNames | None], offsets: Sequence[int], shared: bool
) -> IdentityNames | None:
    given = [(found, offset) for found, offset in zip(names, offsets, strict=True) if found is not None]
    if not given:
        return None
    parts = list(given)
    for reader, found, offset in zip(readers, names, offsets, strict=True):
        if found is None:
            present = np.unique(reader.identities) + offset
            for each, _ in parts if shared else ():  # another data set may name the same numbers
                present = present[~np.isin(present, each.ids)]
            parts += [(IdentityNames.numbers(present, str(reader.paths[0])), 0)]
    if len(parts) == 1:
        return parts[0][0]
    try:
        return join_names(parts, _together(readers))
    except DataError as error:
        advice = "" if shared else "; where equal names are the same people, merge with identities named"
        raise DataError(f"{error}{advice}") from None


def _by_name(
    readers: Sequence[RecordReader], sizes: Sequence[int], names: Sequence[IdentityNames | None]
) -> MergedIdentities:
    """Numbers of the first data set, then of whoever is new in the next, and so on."""
    if len(readers) > 1 and all(found is None for found in names):
        raise DataError(
            f"{_together(readers)}: neither has names, so nobody can be known by name: write identities.tsv "
            "(lines 'identity<tab>name') beside the records, or merge with identities separate or shared"
        )
    total, identities = sizes[0], [readers[0].identities]
    merged = names[0] or IdentityNames.numbers(np.unique(readers[0].identities), str(readers[0].paths[0]))
    remarks = ["identities + 0"]
    for reader, size, found in zip(readers[1:], sizes[1:], names[1:], strict=True):
        mine = found or IdentityNames.numbers(np.unique(reader.identities), str(reader.paths[0]))
        places = mine.places_in(merged)
        known = places >= 0
        numbers = np.empty(len(mine), dtype=np.int64)
        numbers[known] = merged.ids[places[known]]
        numbers[~known] = np.arange(total, total + int((~known).sum()))
        number_of = np.full(size, -1, dtype=np.int64)
        number_of[mine.ids] = numbers
        identities.append(number_of[reader.identities])
        merged = join_names(
            [(merged, 0), (mine.select(np.flatnonzero(~known), numbers[~known]), 0)], _together(readers)
        )
        total += int((~known).sum())
        remarks.append(f"by name, {int(known.sum())} known from before")
    return MergedIdentities(_joined(identities), total, merged, remarks)


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _together(readers: Sequence[RecordReader]) -> str:
    return " and ".join(str(reader.paths[0].parent) for reader in readers)
