"""Record shards and plain records as MXNet 1.9.1 and DALI's own reader find them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, run
from PIL import Image

from data_pipeline import RecordReader, RecordWriter
from data_pipeline.record_set import find_records
from data_pipeline.reshard import ReshardOptions, reshard
from data_pipeline.shard_cut import ShardCut

PYTHON = ROOT / ".venv-mxnet" / "bin" / "python"
SIDE = Path(__file__).parents[1] / "support" / "mxnet_side.py"
needs_mxnet = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-mxnet with MXNet 1.9.1: make venv-mxnet")
pytestmark = pytest.mark.system

IDENTITIES = [0, 0, 1, 2, 2, 2, 5, 5, 6, 7, 2**24 - 1, 2**24, 2**24 + 1, 2**31 + 3, 2**44 - 1]


def jpeg(number: int) -> bytes:
    """A plain grey of its own for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (10 + 15 * number,) * 3).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


IMAGES = [(identity, jpeg(number)) for number, identity in enumerate(IDENTITIES)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    (root / "source").mkdir()
    with RecordWriter(root / "source" / "train.rec") as writer:
        for identity, encoded in IMAGES:
            writer.write(identity, encoded)
    made = {}
    for name, plain, shards in (("shards", False, 4), ("plain", True, 1), ("plain_shards", True, 4)):
        made[name] = root / name
        reshard([root / "source"], made[name], ReshardOptions(plain=plain, cut=ShardCut(shards=shards)))
    return made


def mxnet(folder: Path, *arguments: str | Path) -> Any:
    # -P: the helpers beside the script are no modules of that interpreter.
    finished = run([str(PYTHON), "-P", str(SIDE), *map(str, arguments)], cwd=folder)
    assert finished.code == 0, finished.err
    return json.loads(finished.out.splitlines()[-1])


@needs_mxnet
@pytest.mark.parametrize("name", ["shards", "plain_shards"])
def test_mxnet_reads_every_shard_by_itself(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    alone = []
    for number, path in enumerate(find_records(folders[name])):
        alone.append(tmp_path / str(number))
        alone[-1].mkdir()
        for suffix in (".rec", ".idx"):
            (alone[-1] / f"train{suffix}").write_bytes(path.with_suffix(suffix).read_bytes())
    found = mxnet(tmp_path, "read", *alone)
    images = []
    for folder in alone:
        side = found[folder.name]
        records = [record for record in side["records"] if record["payload"]]
        assert side["sequence"] == len(side["records"]), "the index lists every record"
        assert [record["key"] for record in side["records"]] == [record["id"] for record in side["records"]]
        if name == "shards" or len(records[0]["labels"]) == 1:  # else it takes the two labels for a header's
            assert [payload for _, payload in side["faces"]] == [record["payload"] for record in records], (
                "arcface_torch finds the images"
            )
        assert (folder / "copy.rec").read_bytes() == (folder / "train.rec").read_bytes()
        assert (folder / "copy.idx").read_bytes() == (folder / "train.idx").read_bytes()
        for record in records:
            labels = [int(label) for label in record["labels"]]
            assert record["id2"] == (20 if len(labels) == 2 else 0)
            identity = (labels[0] << 20) + labels[1] if len(labels) == 2 else labels[0]
            images.append((identity, bytes.fromhex(record["payload"])))
    assert images == IMAGES


@needs_mxnet
@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("width", [1, 2])
def test_image_record_iter_reads_plain_records_as_they_are(tmp_path: Path, width: int, with_index: bool) -> None:
    """It wants one number of labels in all records: below 2**24 identities one, from there on two."""
    images = [image for image in IMAGES if (image[0] >= 2**24) == (width == 2)]
    with RecordWriter(tmp_path / "train.rec", plain=True) as writer:
        for identity, encoded in images:
            writer.write(identity, encoded)
    found = mxnet(tmp_path, "iterate", tmp_path / "train.rec", str(width), str(int(with_index)))
    labels = [int(each[0]) if width == 1 else (int(each[0]) << 20) + int(each[1]) for each in found["labels"]]
    assert labels == [identity for identity, _ in images]
    greys = [10 + 15 * number for number, (identity, _) in enumerate(IMAGES) if (identity >= 2**24) == (width == 2)]
    assert found["greys"] == pytest.approx(greys, abs=2)


@pytest.mark.parametrize("name", ["shards", "plain", "plain_shards"])
def test_dalis_own_reader(folders: dict[str, Path], name: str) -> None:
    dali = pytest.importorskip("nvidia.dali")
    paths = find_records(folders[name])
    index = folders[name] / ("dali.idx" if len(paths) > 1 else "train.idx")
    pipeline = dali.Pipeline(batch_size=4, num_threads=1, device_id=None)
    with pipeline:
        encoded, labels = dali.fn.readers.mxnet(path=[str(path) for path in paths], index_path=[str(index)], name="r")
        pipeline.set_outputs(encoded, labels, dali.fn.decoders.image(encoded))
    pipeline.build()
    assert pipeline.reader_meta("r")["epoch_size"] == len(IMAGES), "every record counted is an image"
    found: list[tuple[int, bytes]] = []
    while len(found) < len(IMAGES):
        for each, label, pixels in zip(*pipeline.run(), strict=True):
            numbers = [int(number) for number in np.asarray(label)]
            assert np.asarray(pixels).shape == (32, 32, 3)
            found.append(
                ((numbers[0] << 20) + numbers[1] if len(numbers) == 2 else numbers[0], bytes(np.asarray(each)))
            )
    assert found[: len(IMAGES)] == IMAGES


def test_our_reader_reads_the_plain_layout(folders: dict[str, Path]) -> None:
    for name in folders:
        with RecordReader(find_records(folders[name])) as reader:
            assert [tuple(record) for record in reader] == IMAGES
