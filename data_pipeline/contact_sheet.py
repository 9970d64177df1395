"""A picture of some of a data set's images: a row for each identity."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_pipeline.decode_image import decode_image
from data_pipeline.pending_file import write_file
from data_pipeline.reader import RecordReader

_TILE = 112  # pixels
_GAP = 4
_MARGIN = 72  # for the identity's number
_PAPER, _INK, _BAD = (250, 250, 250), (60, 60, 60), (200, 60, 60)


def contact_sheet(reader: RecordReader, rows: int = 10, columns: int = 8) -> Image.Image:
    """Up to ``rows`` identities, evenly spaced over those with two images or more, with up to ``columns`` images each.

    Where no identity has two images, over all of them. An image that cannot be decoded becomes a red tile.
    """
    order = np.argsort(reader.identities, kind="stable")
    found, starts, counts = np.unique(reader.identities[order], return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    eligible = several if len(several) else np.arange(len(found))
    chosen = eligible[np.unique(np.linspace(0, len(eligible) - 1, min(rows, len(eligible))).astype(np.int64))]
    width = min(columns, int(counts[chosen].max()))
    step = _TILE + _GAP
    sheet = Image.new("RGB", (_MARGIN + width * step + _GAP, len(chosen) * step + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, identity in enumerate(chosen):
        top = _GAP + row * step
        draw.text((_GAP * 2, top + _TILE // 2 - 12), f"{found[identity]}\n{counts[identity]} img", fill=_INK)
        picked = np.unique(np.linspace(0, counts[identity] - 1, min(width, counts[identity])).astype(np.int64))
        for column, place in enumerate(order[starts[identity] + picked].tolist()):
            sheet.paste(_tile(reader, place), (_MARGIN + column * step, top))
    return sheet


def write_contact_sheet(reader: RecordReader, path: Path) -> None:
    """Write the contact sheet of ``reader`` to ``path`` as PNG."""
    buffer = io.BytesIO()
    contact_sheet(reader).save(buffer, "PNG")
    write_file(path, buffer.getvalue())


def _tile(reader: RecordReader, place: int) -> Image.Image:
    try:
        return Image.fromarray(decode_image(reader[place].jpeg, _TILE))
    except ValueError:  # of the record or of the image
        return Image.new("RGB", (_TILE, _TILE), _BAD)
