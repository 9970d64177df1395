"""The files of IJB-B and IJB-C as InsightFace distributes their protocols: ``meta/`` beside ``loose_crop/``.

    meta/ijbc_face_tid_mid.txt          a line for each image: name, template, medium
    meta/ijbc_name_5pts_score.txt       the same images: name, five landmarks (x y), detector's score
    meta/ijbc_template_pair_label.txt   1:1: template, template, 1 (same person) or 0
    meta/ijbc_1N_gallery_G1.csv, _G2    1:N: TEMPLATE_ID, SUBJECT_ID, ... of the two galleries (IJB-B: _S1, _S2)
    meta/ijbc_1N_probe_mixed.csv        1:N: the same of the probes
    loose_crop/NAME                     photos around the faces

M images, P pairs. Fields are separated by blanks in ``.txt``, by commas in ``.csv`` (whose first line is a heading).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from trainer.evaluation.number_table import read_csv_columns, read_numbers, read_words
from trainer.evaluation.template_pooling import TemplateImages, template_images

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
LAYOUT = "the layout is meta/ijbc_face_tid_mid.txt, meta/ijbc_name_5pts_score.txt, ... beside loose_crop/"


@dataclass(frozen=True, eq=False)
class TemplatePairs:
    """1:1: template numbers of the two sides and whether they show one person, [P] each."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Subjects:
    """Templates of a gallery or of the probes, and whose they are; template numbers ascending."""

    name: str
    templates: NDArray[np.int64]
    subjects: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class IjbFiles:
    """All that ``meta/`` says. pairs, galleries and probes: None and empty where the folder has no such files.

    names: [M] of the images.  landmarks: [M, 5, 2].
    """

    name: str
    names: Sequence[str]
    landmarks: NDArray[np.float64]
    templates: TemplateImages
    pairs: TemplatePairs | None
    galleries: tuple[Subjects, ...]
    probes: Subjects | None


def read_ijb(folder: Path) -> IjbFiles:
    """Read and check ``folder``/meta; no image is looked at.

    Raises:
        DataError: no such layout; lists that do not match, with file and line.
    """
    meta = folder / "meta"
    names = [name for name in GALLERIES if (meta / f"{name}_face_tid_mid.txt").is_file()]
    if not names:
        raise DataError(f"{meta}: no ijbb_face_tid_mid.txt or ijbc_face_tid_mid.txt there; {LAYOUT}")
    if len(names) > 1:
        raise DataError(f"{meta} holds both IJB-B and IJB-C; give each a folder of its own")
    name = names[0]
    images, landmarks, templates = _images(meta, name)
    pairs_file = meta / f"{name}_template_pair_label.txt"
    pairs = _pairs(pairs_file, templates) if pairs_file.is_file() else None
    galleries, probes = _identification(meta, name, templates)
    if pairs is None and probes is None:
        raise DataError(
            f"{meta}: neither {pairs_file.name} (1:1) nor the files of 1:N, {name}_1N_probe_mixed.csv "
            f"and both galleries; {LAYOUT}"
        )
    return IjbFiles(name, images, landmarks, templates, pairs, galleries, probes)


def _images(meta: Path, name: str) -> tuple[Sequence[str], NDArray[np.float64], TemplateImages]:
    listed, faces = meta / f"{name}_face_tid_mid.txt", meta / f"{name}_name_5pts_score.txt"
    names, ids = read_words(listed, numbers=2)
    described, values = read_words(faces, numbers=11, whole=False)
    if len(names) != len(described):
        raise DataError(
            f"{listed} lists {len(names)} images and {faces} {len(described)}: they must list the same, line by line"
        )
    for line, (one, other) in enumerate(zip(names, described, strict=True), start=1):
        if one != other:
            raise DataError(
                f"{listed}: image {line} is {one!r}, in {faces.name} it is {other!r}: "
                "both must list the same images in the same order"
            )
        if one.startswith("/") or ".." in one.split("/"):
            raise DataError(f"{listed}: image {line} is {one!r}: names lead to files inside loose_crop/")
    whole = ids.astype(np.int64)
    return names, values[:, :10].reshape(-1, 5, 2), template_images(whole[:, 0], whole[:, 1], values[:, 10])


def _pairs(path: Path, templates: TemplateImages) -> TemplatePairs:
    columns = read_numbers(path, columns=3)
    first, second, label = columns.T
    bad = np.flatnonzero((label != 0) & (label != 1))
    if len(bad):
        raise DataError(f"{path}: pair {bad[0] + 1} has the label {label[bad[0]]}: 1 (same person) or 0 (different)")
    for side in (first, second):
        _known(path, side, templates, "pair")
    same = label == 1
    if same.all() or not same.any():
        raise DataError(f"{path}: all {len(same)} pairs are {'same' if same.all() else 'different'}: rates need both")
    return TemplatePairs(first, second, same)


def _identification(meta: Path, name: str, templates: TemplateImages) -> tuple[tuple[Subjects, ...], Subjects | None]:
    files = [meta / f"{name}_1N_gallery_{gallery}.csv" for gallery in GALLERIES[name]]
    probe_file = meta / f"{name}_1N_probe_mixed.csv"
    there = [path.is_file() for path in (*files, probe_file)]
    if not any(there):
        return (), None
    if not all(there):
        missing = (*files, probe_file)[there.index(False)]
        raise DataError(f"{missing}: missing, while other files of 1:N are there; both galleries and the probes belong")
    galleries = tuple(_subjects(path, label, templates) for path, label in zip(files, GALLERIES[name], strict=True))
    shared = np.intersect1d(galleries[0].subjects, galleries[1].subjects)
    if len(shared):
        raise DataError(
            f"{files[0].name} and {files[1].name} in {meta} share {len(shared)} subjects (first: {shared[0]}): the two "
            "galleries of the open-set protocol are of different people"
        )
    return galleries, _subjects(probe_file, "probe_mixed", templates)


def _subjects(path: Path, name: str, templates: TemplateImages) -> Subjects:
    numbers = read_csv_columns(path, ("TEMPLATE_ID", "SUBJECT_ID"))
    _known(path, numbers[:, 0], templates, "row")
    ids, first = np.unique(numbers[:, 0], return_index=True)
    subjects = numbers[first, 1]
    wrong = np.flatnonzero(subjects[np.searchsorted(ids, numbers[:, 0])] != numbers[:, 1])
    if len(wrong):
        raise DataError(f"{path}: template {numbers[wrong[0], 0]} is of two subjects; a template shows one person")
    return Subjects(name, ids, subjects)


def _known(path: Path, ids: NDArray[np.int64], templates: TemplateImages, what: str) -> None:
    unknown = np.flatnonzero(templates.find(ids) < 0)
    if len(unknown):
        raise DataError(
            f"{path}: {what} {unknown[0] + 1} names template {ids[unknown[0]]}, of which face_tid_mid.txt lists "
            f"no image ({len(unknown)} such): the lists do not belong together"
        )
