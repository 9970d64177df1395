"""Record files between MXNet 1.9.1 and data_pipeline, both ways; MXNet runs in ``.venv-mxnet`` (make venv-mxnet)."""

import colorsys
import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, run
from PIL import Image

from data_pipeline import RecordReader, RecordWriter, make_loader
from data_pipeline.recordio import MAGIC, MAGIC_BYTES

PYTHON = ROOT / ".venv-mxnet" / "bin" / "python"
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-mxnet with MXNet 1.9.1: make venv-mxnet"),
]

Images = list[tuple[int, bytes]]  # identity, JPEG
Records = list[dict[str, Any]]
Labels = float | list[float]


def color(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * 0.37 % 1.0, 1.0, 0.4 + 0.05 * (number % 12))
    return round(255 * red), round(255 * green), round(255 * blue)


def jpeg(number: int) -> bytes:
    """One plain color and one size per number; two of three hold the magic number in a comment, at every alignment."""
    buffer = io.BytesIO()
    Image.new("RGB", (17 + number, 40 - number), color(number)).save(buffer, "JPEG", quality=95)
    plain = buffer.getvalue()
    if number % 3 == 0:
        return plain
    comment = bytes(number % 4) + MAGIC_BYTES * (1 + number % 2)
    return plain[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment + plain[2:]


def photos(identities: list[int]) -> Images:
    return [(identity, jpeg(number)) for number, identity in enumerate(identities)]


COLORS = {jpeg(number): color(number) for number in range(11)}
GROUPED = photos([0, 0, 0, 1, 2, 2, 4, 4, 4, 4, 7])
UNGROUPED = photos([3, 0, 3, 1, 0, 2, 2, 0, 1])
# No images, but every length and every place where the magic number may stand.
SHAPELESS: Images = [(number, b"\xff\xd8" + bytes(number)) for number in range(4)]
SHAPELESS += [(4 + number, bytes(number) + MAGIC_BYTES + b"x" * (5 - number)) for number in range(6)]
SHAPELESS += [(10 + number, MAGIC_BYTES * number + MAGIC_BYTES[:3]) for number in range(4)]
LARGE = [(identity, jpeg(number)) for number, identity in enumerate([2**24 - 1, 2**24, 2**24 + 1, 2**40 + 1])]


@dataclass(frozen=True)
class Written:
    """A data set as MXNet is told to write it, and what is in it."""

    records: Records
    images: Images  # in the order of their keys
    num_range_records: int = 0


def record(key: int, label: Labels, payload: bytes, identifier: int | None = None) -> dict[str, Any]:
    return {"key": key, "id": key if identifier is None else identifier, "label": label, "payload": payload.hex()}


def insightface(images: Images, *, header_first: bool, two_labels: bool) -> Written:
    """InsightFace's native layout: header, images from key 1 on, one range record per run of one identity."""
    starts = [key for key in range(1, len(images) + 1) if key == 1 or images[key - 2][0] != images[key - 1][0]]
    end = len(images) + 1
    header = record(0, [float(end), float(end + len(starts))], b"")
    records = [
        record(key, [float(identity), 1.0] if two_labels else float(identity), payload)
        for key, (identity, payload) in enumerate(images, start=1)
    ]
    records.insert(0 if header_first else len(records), header)
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], end], strict=True)):
        records.append(record(end + number, [float(start), float(stop)], b""))
    return Written(records, images, num_range_records=len(starts))


def im2rec(images: Images, *, keys: list[int], labels: tuple[float, ...] = ()) -> Written:
    """Every record an image; ``labels`` follow the identity in each record."""
    records = [
        record(key, [float(identity), *labels] if labels else float(identity), payload)
        for key, (identity, payload) in zip(keys, images, strict=True)
    ]
    by_key = [image for _, image in sorted(zip(keys, images, strict=True), key=lambda pair: pair[0])]
    return Written(records, by_key)


BY_MXNET = {
    "insightface": insightface(GROUPED, header_first=True, two_labels=False),
    # As InsightFace's face2rec2.py does: labels [identity, aligned], and the header record behind the images.
    "face2rec2": insightface(GROUPED, header_first=False, two_labels=True),
    "plain": im2rec(UNGROUPED, keys=list(range(len(UNGROUPED)))),
    "shuffled": im2rec(UNGROUPED, keys=[40, 2, 31, 5, 17, 3, 0, 8, 11]),
    "more_labels": im2rec(UNGROUPED, keys=list(range(1, len(UNGROUPED) + 1)), labels=(20.0, 8.5)),
}
SHAPELESS_BY_MXNET = im2rec(SHAPELESS, keys=list(range(len(SHAPELESS))))
# A record cut inside its image header.
SHAPELESS_BY_MXNET.records[5]["id"] = MAGIC << 32 | MAGIC

BY_PFC = {"grouped": GROUPED, "ungrouped": UNGROUPED, "shapeless": SHAPELESS, "large": LARGE}


def mxnet_side(action: str, folders: list[Path]) -> str:
    script = Path(__file__).parents[1] / "support" / "mxnet_side.py"
    # -P: the helpers beside the script are no modules of that interpreter.
    finished = run([str(PYTHON), "-P", str(script), action, *map(str, folders)], cwd=folders[0])
    assert finished.code == 0, finished.err
    return finished.out


@pytest.fixture(scope="module")
def by_mxnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("by_mxnet")
    cases = BY_MXNET | {"shapeless": SHAPELESS_BY_MXNET}
    for name, written in cases.items():
        (root / name).mkdir()
        (root / name / "to_write.json").write_text(json.dumps(written.records))
        (root / name / "property").write_text("9,40,40\n")
    mxnet_side("write", [root / name for name in cases])
    return root


@pytest.fixture(scope="module")
def pfc_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("by_pfc")
    for name, images in BY_PFC.items():
        (root / name).mkdir()
        with RecordWriter(root / name / "train.rec") as writer:
            for identity, payload in images:
                writer.write(identity, payload)
    return root


@pytest.fixture(scope="module")
def as_mxnet_reads(pfc_files: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(mxnet_side("read", [pfc_files / name for name in BY_PFC]))
    return found


@pytest.mark.parametrize("name", [*BY_MXNET, "shapeless"])
def test_every_image_mxnet_wrote_is_read(name: str, by_mxnet: Path) -> None:
    written = SHAPELESS_BY_MXNET if name == "shapeless" else BY_MXNET[name]
    reader = RecordReader(by_mxnet / name / "train.rec")
    assert [(record.identity, record.jpeg) for record in reader] == written.images
    assert reader.identities.tolist() == [identity for identity, _ in written.images]
    assert reader.shards[0].num_range_records == written.num_range_records
    assert reader.shards[0].layout == ("insightface" if written.num_range_records else "plain")
    assert reader.num_identities == 9, "from the property file"


@pytest.mark.parametrize("name", BY_MXNET)
def test_dali_decodes_each_of_them_once(name: str, by_mxnet: Path) -> None:
    images = BY_MXNET[name].images
    seen: dict[int, tuple[int, torch.Tensor]] = {}
    for rank in range(2):
        loader = make_loader(
            by_mxnet / name / "train.rec", batch_size=2, rank=rank, world_size=2, drop_last=False,
            decoder="dali", image_size=24, flip=False,
        )  # fmt: skip
        for batch in loader:
            for place, index in enumerate(batch.indices.tolist()):
                assert index not in seen, f"image {index} came twice"
                seen[index] = int(batch.identities[place]), batch.images[place]
    assert sorted(seen) == list(range(len(images)))
    for index, (identity, pixels) in seen.items():
        assert identity == images[index][0]
        truth = torch.tensor(COLORS[images[index][1]]) / 127.5 - 1
        assert (pixels - truth[:, None, None]).abs().max() < 4 / 127.5, f"image {index} is of another color"


@pytest.mark.parametrize("name", BY_PFC)
def test_mxnet_reads_the_records_we_wrote(name: str, as_mxnet_reads: dict[str, dict[str, Any]]) -> None:
    images, found = BY_PFC[name], as_mxnet_reads[name]
    records: Records = found["records"]
    end = len(images) + 1
    ranges = insightface(images, header_first=True, two_labels=False).num_range_records if name != "ungrouped" else 0
    assert found["sequence"] == len(records) == end + ranges
    assert [record["key"] for record in records] == [record["id"] for record in records] == list(range(end + ranges))
    assert records[0]["labels"] == [end, end + ranges]
    for record, (identity, payload) in zip(records[1:end], images, strict=True):
        assert bytes.fromhex(record["payload"]) == payload
        whole = identity < 2**24
        assert record["labels"] == ([identity] if whole else [identity >> 20, identity & 0xFFFFF])
        assert record["id2"] == (0 if whole else 20)
    for record, identity in zip(records[end:], sorted({identity for identity, _ in images}), strict=bool(ranges)):
        start, stop = (int(label) for label in record["labels"])
        assert record["payload"] == ""
        assert {images[key - 1][0] for key in range(start, stop)} == {identity}
    assert sum(record["labels"][1] - record["labels"][0] for record in records[end:]) == (len(images) if ranges else 0)


@pytest.mark.parametrize("name", BY_PFC)
def test_mxnet_writes_the_same_bytes(name: str, pfc_files: Path, as_mxnet_reads: dict[str, dict[str, Any]]) -> None:
    folder = pfc_files / name
    assert as_mxnet_reads[name]["sequence"], "the copies are made"
    for suffix in (".rec", ".idx"):
        assert folder.joinpath(f"copy{suffix}").read_bytes() == folder.joinpath(f"train{suffix}").read_bytes(), suffix


@pytest.mark.parametrize("name", BY_PFC)
def test_arcface_torch_finds_every_image(name: str, as_mxnet_reads: dict[str, dict[str, Any]]) -> None:
    faces = [(identity, bytes.fromhex(payload)) for identity, payload in as_mxnet_reads[name]["faces"]]
    if name == "large":  # it knows no second label: identities from 2**24 on are for our own reader only
        assert [payload for _, payload in faces] == [payload for _, payload in LARGE]
        assert faces[0] == LARGE[0]
    else:
        assert faces == BY_PFC[name]


def test_the_magic_number_stands_at_every_alignment() -> None:
    places = {jpeg(number).find(MAGIC_BYTES) % 4 for number in range(11) if MAGIC_BYTES in jpeg(number)}
    assert places == set(range(4))
    assert np.unique([len(payload) % 4 for _, payload in SHAPELESS]).size == 4
