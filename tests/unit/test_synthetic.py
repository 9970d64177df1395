"""Synthetic identities: a pure function of (seed, identity, image), laid out as InsightFace does, all or nothing."""

import io
import math
import tracemalloc
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data_pipeline.synthetic
from data_pipeline.errors import DataError
from data_pipeline.pairs import read_pairs
from data_pipeline.properties import read_properties
from data_pipeline.reader import RecordReader
from data_pipeline.record_set import find_records
from data_pipeline.shard_cut import ShardCut
from data_pipeline.synthetic import UNSEEN_START, synthesize, synthetic_photo, synthetic_traits, verification_photos
from data_pipeline.synthetic_photo import photograph
from data_pipeline.synthetic_traits import RANGES

pytestmark = pytest.mark.unit

SMALL: dict[str, Any] = {
    "identities": 5,
    "images_per_identity": 3,
    "unseen_identities": 7,
    "pairs": 40,
    "image_size": 48,
    "seed": 3,
}
FILES = ["identities.tsv", "property", "train.idx", "train.rec", "verification.bin"]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "new" / "set"
    synthesize(folder, **SMALL)
    return folder


def _pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)), dtype=np.float64)


def test_files_counts_and_property(made: Path) -> None:
    assert sorted(_contents(made)) == FILES
    with RecordReader(made / "train.rec") as reader:
        assert [reader[i].identity for i in range(len(reader))] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    properties = read_properties(made)
    assert properties is not None
    assert (properties.num_identities, properties.height, properties.width) == (5, 48, 48)
    assert (made / "identities.tsv").read_text().splitlines() == [f"{who}\tface-3-{who}" for who in range(5)]


def test_every_image_is_an_rgb_jpeg_of_the_size_and_none_occurs_twice(made: Path) -> None:
    with RecordReader(made / "train.rec") as reader:
        jpegs = [reader[i].jpeg for i in range(len(reader))]
    jpegs += read_pairs(made / "verification.bin").jpegs
    assert len(jpegs) == len(set(jpegs)) == 15 + 80
    for jpeg in jpegs:
        with Image.open(io.BytesIO(jpeg)) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 48))


def test_pairs_are_ten_folds_same_first(made: Path) -> None:
    same = read_pairs(made / "verification.bin").same
    assert same.reshape(10, 4).tolist() == [[True, True, False, False]] * 10


def test_images_are_what_the_public_functions_draw(made: Path) -> None:
    with RecordReader(made / "train.rec") as reader:
        assert reader[7].jpeg == synthetic_photo(3, 2, 1, 48)
    photos, _ = verification_photos(7, 40, 3)
    assert read_pairs(made / "verification.bin").jpegs == [synthetic_photo(3, *photo, 48) for photo in photos]


def test_any_number_of_workers_writes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "again", **SMALL, workers=3)
    assert _contents(tmp_path / "again") == _contents(made)


def test_another_seed_draws_other_identities(made: Path, tmp_path: Path) -> None:
    synthesize(tmp_path, **{**SMALL, "seed": 4})
    ours, other = _contents(made), _contents(tmp_path)
    assert ours["train.rec"] != other["train.rec"]
    assert ours["verification.bin"] != other["verification.bin"]


def test_unseen_identities_do_not_depend_on_the_training_set(made: Path, tmp_path: Path) -> None:
    synthesize(tmp_path, **{**SMALL, "identities": 2, "images_per_identity": 1})
    assert (tmp_path / "verification.bin").read_bytes() == (made / "verification.bin").read_bytes()


def test_traits_of_all_identities_differ_and_stay_in_range() -> None:
    numbers = [*range(300), *range(UNSEEN_START, UNSEEN_START + 100)]
    traits = np.array([astuple(synthetic_traits(0, number)) for number in numbers])
    low, high = np.array(RANGES).T
    assert ((low <= traits) & (traits <= high)).all()
    # In units of each range: no two identities are near-twins in the whole of their traits...
    scaled = (traits - low) / (high - low)
    distance = np.sqrt(((scaled[:, None] - scaled[None]) ** 2).mean(axis=2))
    assert distance[~np.eye(len(numbers), dtype=bool)].min() > 0.15
    # ...while every single trait is shared with somebody, so none of them tells an identity alone.
    assert (np.sort(np.diff(np.sort(scaled, axis=0), axis=0), axis=0)[200] < 0.01).all()


def test_unseen_identities_are_not_those_of_training() -> None:
    photos, _ = verification_photos(7, 40, 3)
    assert {identity for identity, _ in photos} == set(range(UNSEEN_START, UNSEEN_START + 7))
    training = {astuple(synthetic_traits(3, identity)) for identity in range(300)}
    assert training.isdisjoint(astuple(synthetic_traits(3, identity)) for identity, _ in photos)


@pytest.mark.parametrize(("unseen", "pairs"), [(2, 20), (3, 60), (101, 40)])
def test_pairs_say_what_is_in_them(unseen: int, pairs: int) -> None:
    photos, same = verification_photos(unseen, pairs, 0)
    assert len(photos) == len(set(photos)) == 2 * pairs
    identities = np.array([identity for identity, _ in photos]).reshape(pairs, 2)
    assert ((identities[:, 0] == identities[:, 1]) == same).all()
    counts = np.unique(identities[same, 0], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1
    assert same.sum() == pairs // 2


def test_identity_and_occasion_both_shape_the_picture() -> None:
    """Same occasion, other identity: another face under the same light. Other occasion: brightness tells nothing."""
    faces = [_pixels(photograph(synthetic_traits(0, who), np.random.default_rng(7), 64)) for who in range(5)]
    for who, face in enumerate(faces):
        for other in faces[:who]:
            assert np.abs(face - other).mean() > 5
    brightness = np.array([[_pixels(synthetic_photo(0, who, k, 32)).mean() for k in range(24)] for who in range(6)])
    assert brightness.std(axis=1).mean() > 1.4 * brightness.mean(axis=1).std()


@pytest.mark.parametrize("size", [16, 64, 113, 224])
def test_any_size(size: int) -> None:
    assert _pixels(synthetic_photo(0, 1, 2, size)).shape == (size, size, 3)


def test_the_same_picture_at_two_sizes() -> None:
    """The drawing scales: only noise and JPEG differ between sizes."""
    large = Image.open(io.BytesIO(synthetic_photo(0, 5, 0, 128))).resize((32, 32), Image.Resampling.BOX)
    small = _pixels(synthetic_photo(0, 5, 0, 64))
    small = small.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(np.asarray(large).ravel(), small.ravel())[0, 1] > 0.97


# Refusals.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identities", 0),
        ("identities", (1 << 31) + 1),
        ("images_per_identity", 0),
        ("unseen_identities", 1),
        ("pairs", 0),
        ("pairs", 30),
        ("pairs", -20),
        ("image_size", 8),
        ("image_size", 100_000),
        ("image_size", 112.0),
        ("seed", -1),
        ("seed", 1 << 32),
        ("workers", 0),
        ("workers", True),
        ("style", "baroque"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(DataError, match=f"^{name} = ") as caught:
        synthesize(tmp_path / "out", **{**SMALL, name: value})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_records_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"train\.rec exists: .*--overwrite"):
        synthesize(tmp_path, **SMALL)
    assert _contents(tmp_path) == {"train.rec": b"mine"}


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(DataError, match="cannot make the folder"):
        synthesize(tmp_path / "out", **SMALL)
    assert _contents(tmp_path) == {"out": b"mine"}


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_a_broken_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise failure

    monkeypatch.setattr(data_pipeline.synthetic, "write_pairs", stop)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes").write_bytes(b"mine")
    for name in ("new", "old"):
        with pytest.raises(failure):
            synthesize(tmp_path / name, **SMALL)
    assert not (tmp_path / "new").exists()
    assert _contents(tmp_path / "old") == {"notes": b"mine"}


def test_a_failing_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fails in another process surfaces here, and the others do not go on."""
    monkeypatch.setattr(data_pipeline.synthetic, "_draw_job", math.sqrt)  # importable there, and wants one number
    with pytest.raises(TypeError, match="exactly one argument"):
        synthesize(tmp_path / "new", **SMALL, workers=2)
    assert not (tmp_path / "new").exists()


# Simple patterns, record shards, memory.


def test_what_is_learned_from_some_simple_identities_tells_others_apart() -> None:
    """Weighing what varies within an identity (a linear discriminant) turns a poor guess into a good one."""

    def thumbnails(who: range, photos: int) -> np.ndarray:
        jpegs = [[synthetic_photo(0, each, k, 32, "simple") for k in range(photos)] for each in who]
        return np.array([[_thumbnail(jpeg) for jpeg in row] for row in jpegs])

    known, unseen = thumbnails(range(100, 250), 6), thumbnails(range(60), 2)
    within = (known - known.mean(axis=1, keepdims=True)).reshape(-1, known.shape[2])
    values, vectors = np.linalg.eigh(within.T @ within / len(within) + 1e-3 * np.eye(within.shape[1]))

    def accuracy(weights: np.ndarray) -> float:
        """Share of the unseen identities whose second photograph is the one nearest to the first; chance is 1/60."""
        embeddings = (unseen - known.mean(axis=(0, 1))) @ weights
        embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
        nearest = (embeddings[:, 0] @ embeddings[:, 1].T).argmax(axis=1)
        return float((nearest == np.arange(60)).mean())

    assert accuracy(np.eye(len(values))) < 0.4
    assert accuracy(vectors / np.sqrt(values)) > 0.75


def _thumbnail(jpeg: bytes) -> np.ndarray:
    small = Image.open(io.BytesIO(jpeg)).resize((7, 7), Image.Resampling.BOX)
    return np.log(np.asarray(small, dtype=np.float64) + 20).ravel()


@pytest.mark.parametrize("size", [16, 113])
def test_simple_pictures_are_jpegs_of_any_size_and_all_differ(size: int) -> None:
    jpegs = {synthetic_photo(seed, who, k, size, "simple") for seed in range(2) for who in range(3) for k in range(3)}
    assert len(jpegs) == 18
    for jpeg in jpegs:
        with Image.open(io.BytesIO(jpeg)) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))
    first = synthetic_photo(0, 0, 0, size, "simple")
    synthetic_photo(0, 1, 0, size, "simple")
    assert synthetic_photo(0, 0, 0, size, "simple") == first, "whatever was drawn in between"


def test_record_shards_of_any_number_of_workers(tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "identities": 40, "style": "simple", "cut": ShardCut(shards=3)}
    synthesize(tmp_path / "one", **options)
    synthesize(tmp_path / "three", **options, workers=3)
    synthesize(tmp_path / "whole", **{**options, "cut": None})
    assert _contents(tmp_path / "one") == _contents(tmp_path / "three")
    with (
        RecordReader(find_records(tmp_path / "one")) as sharded,
        RecordReader(tmp_path / "whole" / "train.rec") as whole,
    ):
        assert len(sharded.shards) == 3
        assert list(sharded) == list(whole)


def test_memory_does_not_grow_with_identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pictures do not matter here, and drawing 20,000 takes its time.
    monkeypatch.setattr(data_pipeline.synthetic, "synthetic_photo", lambda *_: b"jpeg" * 20)

    def peak(identities: int) -> int:
        tracemalloc.start()
        try:
            synthesize(tmp_path, **{**SMALL, "identities": identities, "images_per_identity": 2}, overwrite=True)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # whatever is made once
    small, large = peak(500), peak(10_000)
    assert large < small + 100_000, f"{large - small} bytes more for 9,500 identities more"
