"""Pictures of suspects for the page: rows of faces with a caption each."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data_pipeline import RecordReader
from data_pipeline.errors import DataError
from trainer.cleaning.survey import Survey
from trainer.cleaning.suspicion import Merged, Split, Wrong
from trainer.report.faces import thumbnail

ROWS = 30  # of a kind on the page; the relabel file has all
FACES = 8  # in a row


@dataclass(frozen=True)
class Face:
    """source: ``data:`` address, None where the image is no picture. position: in the data set."""

    source: str | None
    position: int


@dataclass(frozen=True)
class Row:
    """Faces beside each other, and who they are said to be."""

    caption: str
    faces: list[Face]


@dataclass(frozen=True)
class Sheet:
    """A suspicion with its pictures: title, score, and one row for each person it is about."""

    title: str
    score: float
    rows: list[Row]


def merged_sheet(found: Survey, one: Merged, reader: RecordReader) -> Sheet:
    """The two groups of a folder."""
    here = found.images_of(one.number)
    second = found.second[here]
    groups = [("first", found.positions[here][~second]), ("second", found.positions[here][second])]
    return Sheet(
        f"identity {found.identities[one.number]}: groups {_degrees(one.as_far_as)} apart",
        one.score,
        [_row(f"{name} group, {len(images)} images", images.tolist(), reader) for name, images in groups],
    )


def split_sheet(found: Survey, pair: Split, reader: RecordReader) -> Sheet:
    """The two folders of a person."""
    identity = found.identities
    return Sheet(
        f"identities {identity[pair.keep]} and {identity[pair.other]}: means {_degrees(pair.angle)} apart",
        pair.score,
        [_identity_row(found, number, reader) for number in (pair.keep, pair.other)],
    )


def wrong_sheet(found: Survey, number: int, images: list[Wrong], reader: RecordReader) -> Sheet:
    """The images of identity ``number`` that look like others', and images that look like itself."""
    wrong = [int(found.positions[each.place]) for each in images]
    targets = sorted({int(found.identities[found.nearest[each.place]]) for each in images})
    shown = ", ".join(map(str, targets[:FACES])) + (", ..." if len(targets) > FACES else "")
    theirs = [int(target) for target in dict.fromkeys(found.nearest[each.place] for each in images[:2])]
    return Sheet(
        f"identity {found.identities[number]}: {len(images)} of {found.counts[number]} images look like others'",
        images[0].score,
        [
            _row(f"look like {shown}", wrong, reader),
            _identity_row(found, number, reader),
            *(_identity_row(found, target, reader) for target in theirs),
        ],
    )


def _identity_row(found: Survey, number: int, reader: RecordReader) -> Row:
    """The images nearest to the identity's mean: what it looks like."""
    here = found.images_of(number)
    order = np.argsort(np.nan_to_num(found.own[here], nan=0.0), kind="stable")[:FACES]
    return _row(
        f"identity {found.identities[number]}, {found.counts[number]} images",
        found.positions[here][order].tolist(),
        reader,
    )


def _row(caption: str, positions: Iterable[int], reader: RecordReader) -> Row:
    faces = []
    for position in list(positions)[:FACES]:
        try:
            faces.append(Face(thumbnail(reader[position].jpeg), position))
        except (ValueError, DataError):
            faces.append(Face(None, position))
    return Row(caption, faces)


def _degrees(angle: float) -> str:
    return f"{np.degrees(angle):.0f}°"
