"""Files by MXNet's own tools, im2rec and ``pack_img``, and without an index; MXNet runs in ``.venv-mxnet``."""

import io
import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from commands import ROOT, run
from PIL import Image

from data_pipeline import RecordReader, make_loader
from data_pipeline.decoders import DecoderName
from data_pipeline.index import rebuild_index
from data_pipeline.recordio import MAGIC_BYTES

VENV = ROOT / ".venv-mxnet"
PYTHON = VENV / "bin" / "python"
IM2REC = next(VENV.glob("lib/python*/site-packages/mxnet/tools/im2rec.py"), Path("im2rec.py"))
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-mxnet with MXNet 1.9.1: make venv-mxnet"),
]

SIZE, PEOPLE, EACH = 24, 3, 5


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def mxnet(*arguments: str | Path, cwd: Path) -> str:
    finished = run([str(PYTHON), "-P", *map(str, arguments)], cwd=cwd)
    assert finished.code == 0, finished.err
    return finished.out


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faces/pN/: JPEGs and PNGs; all.lst as im2rec lists them, keys shuffled, identities by folder."""
    root = tmp_path_factory.mktemp("im2rec")
    for number in range(PEOPLE * EACH):
        folder = root / "faces" / f"p{number // EACH}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / (f"{number}.png" if number % 2 else f"{number}.jpg"))
    mxnet(IM2REC, root / "all", root / "faces", "--list", "--recursive", cwd=root)
    return root


def listed(path: Path) -> dict[int, tuple[list[float], Path]]:
    """Key -> (labels, file) of an im2rec list."""
    found = {}
    for line in path.read_text().splitlines():
        key, *labels, name = line.split("\t")
        found[int(key)] = [float(label) for label in labels], Path(name)
    return found


def packed(tree: Path, name: str, *options: str) -> tuple[Path, dict[int, tuple[list[float], Path]]]:
    mxnet(IM2REC, tree / name, tree / "faces", *options, cwd=tree)
    return tree / f"{name}.rec", listed(tree / f"{name}.lst")


def test_files_passed_through_are_read_byte_for_byte(tree: Path) -> None:
    records, entries = packed(tree, "all", "--pass-through")
    assert list(entries) != sorted(entries), "im2rec shuffles the keys"
    reader = RecordReader(records)
    wanted = [(int(entries[key][0][0]), (tree / "faces" / entries[key][1]).read_bytes()) for key in sorted(entries)]
    assert [tuple(record) for record in reader] == wanted
    assert reader.identities.tolist() == [identity for identity, _ in wanted]
    # The index that a scan makes is MXNet's, byte for byte.
    before = records.with_suffix(".idx").read_bytes()
    rebuild_index(records)
    assert records.with_suffix(".idx").read_bytes() == before


@pytest.mark.parametrize("decoder", get_args(DecoderName))
def test_png_payloads_are_decoded_exactly(tree: Path, decoder: DecoderName) -> None:
    shutil.copy(tree / "all.lst", tree / "png.lst")
    records, entries = packed(tree, "png", "--encoding", ".png", "--quality", "9")
    reader = RecordReader(records)
    assert all(record.jpeg.startswith(b"\x89PNG") for record in reader)
    loader = make_loader(
        reader, batch_size=4, drop_last=False, order="sequential", flip=False, decoder=decoder,
        image_size=SIZE,
    )  # fmt: skip
    images = torch.cat([batch.images for batch in loader])
    for key, image in zip(sorted(entries), images, strict=True):
        name = entries[key][1]
        if name.suffix == ".png":  # lossless all the way
            truth = np.asarray(picture(int(name.stem)), dtype=np.float32).transpose(2, 0, 1)
            assert np.abs((image.numpy() + 1) * 127.5 - truth).max() < 1e-3


def test_label_vectors_begin_with_the_identity(tree: Path) -> None:
    lines = [
        f"{key}\t{labels[0]:g}\t{0.25 + number}\t-8\t{name}\n"
        for number, (key, (labels, name)) in enumerate(listed(tree / "all.lst").items())
    ]
    (tree / "vectors.lst").write_text("".join(lines))
    records, entries = packed(tree, "vectors", "--pass-through", "--pack-label")
    reader = RecordReader(records)
    wanted = [int(entries[key][0][0]) for key in sorted(entries)]
    assert [record.identity for record in reader] == reader.identities.tolist() == wanted
    assert sorted(set(wanted)) == list(range(PEOPLE))


def test_chunks_are_one_data_set_with_and_without_their_indexes(tree: Path) -> None:
    mxnet(IM2REC, tree / "part", tree / "faces", "--list", "--recursive", "--chunks", "3", cwd=tree)
    names = sorted(path.stem for path in tree.glob("part*.lst"))
    assert len(names) == 3
    entries = [packed(tree, name, "--pass-through") for name in names]
    wanted = [int(part[key][0][0]) for _, part in entries for key in sorted(part)]
    assert len(wanted) == PEOPLE * EACH
    records = [path for path, _ in entries]
    assert RecordReader(records).identities.tolist() == wanted
    before = list(RecordReader(records))
    records[1].with_suffix(".idx").unlink()
    assert list(RecordReader(records)) == before


def test_a_file_that_mxnet_wrote_without_index_is_read(tmp_path: Path) -> None:
    payloads = [bytes(number) + MAGIC_BYTES * (number % 3) + b"x" * (1 + number % 4) for number in range(13)]
    labels = [[float(number), 0.5] if number % 2 else float(number) for number in range(13)]
    written = [
        {"key": number, "id": number, "label": label, "payload": payload.hex()}
        for number, (label, payload) in enumerate(zip(labels, payloads, strict=True))
    ]
    (tmp_path / "to_write.json").write_text(json.dumps(written))
    mxnet(ROOT / "tests" / "support" / "mxnet_side.py", "sequential", tmp_path, cwd=tmp_path)
    assert [tuple(record) for record in RecordReader(tmp_path)] == list(enumerate(payloads))
    assert not (tmp_path / "train.idx").exists()


def test_images_that_mxnet_encoded_decode_to_the_pixels_it_sees(tmp_path: Path) -> None:
    for number in range(6):
        picture(number).save(tmp_path / f"{number}.png")
    mxnet(ROOT / "tests" / "support" / "mxnet_side.py", "pack_img", tmp_path, cwd=tmp_path)
    reader = RecordReader(tmp_path)
    assert reader.identities.tolist() == list(range(6))
    for record, theirs in zip(reader, np.load(tmp_path / "pixels.npy"), strict=True):
        with Image.open(io.BytesIO(record.jpeg)) as image:
            assert image.format == ("PNG" if record.identity % 2 else "JPEG")
            ours = np.asarray(image.convert("RGB"), dtype=int)
        # Two JPEG libraries round differently; PNG is exact.
        assert np.abs(ours - theirs).max() <= (0 if record.identity % 2 else 4)
