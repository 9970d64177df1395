"""Small data sets for the protocols, in the layouts that users hold: loose crops with landmarks, crops, records."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline import RecordWriter
from data_pipeline.synthetic import synthetic_photo
from trainer.evaluation.alignment import ARCFACE_TEMPLATE

SIDE = 112


def photo(identity: int, image: int) -> bytes:
    return synthetic_photo(3, identity, image, SIDE, style="simple")


def loose_crop(jpeg: bytes, generator: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """The face somewhere in a larger picture, turned and scaled, as PNG, and where its five landmarks are."""
    angle, scale = generator.uniform(-0.4, 0.4), generator.uniform(0.9, 1.4)
    shift = generator.uniform(30, 60, 2)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = ARCFACE_TEMPLATE @ matrix.T + shift
    back = np.linalg.inv(matrix)
    # Pillow's pixel (0, 0) covers 0 to 1; landmarks count from its centre.
    offset = back @ (0.5 - 0.5 - shift) + (0.5 - back @ np.array([0.5, 0.5]))
    coefficients = (*back[0], offset[0], *back[1], offset[1])
    with Image.open(io.BytesIO(jpeg)) as face:
        seen = face.convert("RGB").transform((240, 230), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    seen.save(buffer, "PNG")
    return buffer.getvalue(), landmarks


@dataclass(frozen=True)
class IjbLayout:
    """folder: meta/ and loose_crop/.  aligned: the same names as aligned crops.  records: image i is line i."""

    folder: Path
    aligned: Path
    records: Path


def write_ijb(root: Path, *, name: str = "ijbc", subjects: int = 12, seed: int = 0) -> IjbLayout:
    """Each subject has a gallery template of 2 images and two probe templates of 3 images, two of which are frames of
    one video; subjects are dealt to the two galleries in turn.
    """
    generator = np.random.default_rng(seed)
    layout = IjbLayout(root / name, root / f"{name}_aligned", root / f"{name}.rec")
    (layout.folder / "meta").mkdir(parents=True)
    (layout.folder / "loose_crop").mkdir()
    layout.aligned.mkdir()
    templates, listed, described = [], [], []  # (template, subject, gallery or None)
    with RecordWriter(layout.records) as records:
        number = 0
        for subject in range(subjects):
            image = 0
            for kind in range(3):
                template = 100 * subject + 7 * kind + 1
                templates.append((template, 1000 + subject, subject % 2 if kind == 0 else None))
                for place in range(2 if kind == 0 else 3):
                    jpeg = photo(subject, image)
                    image, number = image + 1, number + 1
                    file, medium = f"{number}.png", 50 * subject + 10 * kind + min(place, 1)
                    crop, landmarks = loose_crop(jpeg, generator)
                    (layout.folder / "loose_crop" / file).write_bytes(crop)
                    (layout.aligned / file).write_bytes(jpeg)
                    records.write(subject, jpeg)
                    listed.append(f"{file} {template} {medium}")
                    points = " ".join(f"{value:.4f}" for value in landmarks.flatten())
                    described.append(f"{file} {points} {generator.uniform(0.5, 1):.6f}")
    meta = layout.folder / "meta"
    (meta / f"{name}_face_tid_mid.txt").write_text("\n".join(listed) + "\n")
    (meta / f"{name}_name_5pts_score.txt").write_text("\n".join(described) + "\n")
    enrolled = [(t, s) for t, s, gallery in templates if gallery is not None]
    probes = [(t, s) for t, s, gallery in templates if gallery is None]
    pairs = [f"{a} {b} {int(s == z)}" for a, s in enrolled for b, z in probes]
    (meta / f"{name}_template_pair_label.txt").write_text("\n".join(pairs) + "\n")
    labels = ("S1", "S2") if name == "ijbb" else ("G1", "G2")
    for place, label in enumerate(labels):
        rows = [f"{t},{s},img/{t}.jpg" for t, s, gallery in templates if gallery == place]
        (meta / f"{name}_1N_gallery_{label}.csv").write_text(
            "\n".join(["TEMPLATE_ID,SUBJECT_ID,FILENAME", *rows]) + "\n"
        )
    rows = [f"{t},{s},img/{t}.jpg" for t, s in probes]
    (meta / f"{name}_1N_probe_mixed.csv").write_text("\n".join(["TEMPLATE_ID,SUBJECT_ID,FILENAME", *rows]) + "\n")
    return layout


def write_people(root: Path, *, people: int = 8, images: int = 3, first: int = 0) -> tuple[Path, Path]:
    """The same faces as a folder for each person and as a .rec, in the same order."""
    folder, records = root / f"people_{first}", root / f"people_{first}.rec"
    with RecordWriter(records) as writer:
        for person in range(people):
            (folder / f"person_{person:03d}").mkdir(parents=True)
            for image in range(images):
                jpeg = photo(first + person, image)
                (folder / f"person_{person:03d}" / f"{image}.jpg").write_bytes(jpeg)
                writer.write(person, jpeg)
    return folder, records
