"""What a record holds: MXNet's image header, an identity and the bytes of a JPEG.

Content of a record: ``IRHeader`` (struct ``IfQQ``: flag uint32, label float32, id uint64, id2 uint64), then
``flag`` float32 labels when flag > 0 (they replace the label field), then the JPEG.

A float32 holds integers exactly up to 2**24 only, so the rule for identities is:

- written: identity < 2**24: flag 0, scalar label, id2 0, as MXNet and InsightFace do.
  Otherwise flag 2, labels [identity >> 20, identity & 0xFFFFF], and **id2 = 20** (the bits in the second label)
  marks the pair as one number. 20 + 24 bits: identities stop below 2**44.
- read: flag 0: the scalar. Flag 2 and id2 = 20: the pair. Any other flag: the first label alone, as InsightFace
  reads its own files (some hold [identity, 0.0]).
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import BadRecordError, DataError

HEADER = struct.Struct("<IfQQ")
SPLIT_BITS = 20
MAX_SCALAR = 1 << 24  # identities below it are exact in float32
MAX_IDENTITY = 1 << (SPLIT_BITS + 24)


class Record(NamedTuple):
    """One image: its identity (int64 range) and its encoded bytes."""

    identity: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """An unpacked ``IRHeader``; ``labels``: the scalar when ``flag`` is 0, else the first two; payload at ``size``."""

    flag: int
    labels: tuple[float, ...]
    key: int
    mark: int
    size: int


def pack_header(labels: tuple[float, ...], key: int, mark: int = 0) -> bytes:
    """Labels -> IRHeader bytes: one label as the scalar (flag 0), several behind the header (flag = how many)."""
    if len(labels) == 1:
        return HEADER.pack(0, labels[0], key, mark)
    return HEADER.pack(len(labels), 0.0, key, mark) + struct.pack(f"<{len(labels)}f", *labels)


def pack_image(identity: int, key: int, jpeg: bytes) -> bytes:
    """The content of an image record, by the rule above.

    Raises:
        DataError: the identity is outside [0, 2**44).
    """
    if not 0 <= identity < MAX_IDENTITY:
        raise DataError(f"identity {identity} of record {key} is outside [0, 2**44): renumber the identities")
    if identity < MAX_SCALAR:
        return pack_header((float(identity),), key) + jpeg
    pair = (float(identity >> SPLIT_BITS), float(identity & ((1 << SPLIT_BITS) - 1)))
    return pack_header(pair, key, SPLIT_BITS) + jpeg


def unpack_header(content: bytes, where: str) -> Header:
    """The header at the start of a record's content; ``where`` (file and record) begins the message.

    Raises:
        BadRecordError: the content is shorter than its header says.
    """
    if len(content) < HEADER.size:
        raise BadRecordError(
            "bad_record", f"{where}: {len(content)} bytes are too few for an image header: not an image record file"
        )
    flag, label, key, mark = HEADER.unpack_from(content)
    size = HEADER.size + 4 * flag
    if size > len(content):
        raise BadRecordError(
            "bad_record", f"{where}: announces {flag} labels but holds {len(content)} bytes: the data is damaged"
        )
    # No more than identities are made of: a hostile record may announce a hundred million.
    labels = struct.unpack_from(f"<{min(flag, 2)}f", content, HEADER.size) if flag else (label,)
    return Header(flag, labels, key, mark, size)


def decode_identities(
    flag: NDArray[np.uint32], mark: NDArray[np.uint64], first: NDArray[np.float32], second: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Identities [n] of n headers by the rule above; -1 where the labels are no identity.

    Args:
        flag: [n] the number of labels, 0 for a scalar.
        mark: [n] ``id2``.
        first: [n] the scalar or the first label.
        second: [n] the second label; ignored unless marked as the low bits.
    """
    split = (flag == 2) & (mark == SPLIT_BITS)
    with np.errstate(invalid="ignore"):  # a signalling NaN, which is no identity either
        high, low = first.astype(np.float64), np.where(split, second, 0).astype(np.float64)
    sound = (high >= 0) & (high == np.floor(high)) & (high <= MAX_SCALAR)  # NaN fails the comparison
    sound &= (low >= 0) & (low == np.floor(low)) & (low < 1 << SPLIT_BITS)
    top, rest = np.where(sound, high, 0).astype(np.int64), np.where(sound, low, 0).astype(np.int64)
    identities: NDArray[np.int64] = np.where(sound, np.where(split, (top << SPLIT_BITS) + rest, top), -1)
    return identities


def identity_of(header: Header, where: str) -> int:
    """The identity in one header.

    Raises:
        BadRecordError: the label is not a whole number in range.
    """
    first, second = header.labels[0], header.labels[1] if len(header.labels) > 1 else 0.0
    scale, low = (1 << SPLIT_BITS, second) if header.flag == 2 and header.mark == SPLIT_BITS else (1, 0.0)
    if not (first >= 0 and first.is_integer() and first <= MAX_SCALAR and 0 <= low < 1 << SPLIT_BITS):
        raise bad_label(where, header.labels)
    if not low.is_integer():
        raise bad_label(where, header.labels)
    return int(first) * scale + int(low)


def bad_label(where: str, labels: tuple[float, ...]) -> BadRecordError:
    """The error for labels that are no identity."""
    return BadRecordError(
        "bad_record",
        f"{where}: label {labels[0] if len(labels) == 1 else list(labels)} is not an identity: "
        "identities are whole numbers from 0; pack the data again",
    )
