"""Synthetic identities: a pure function of (seed, identity, image), laid out as InsightFace does, all or nothing."""

import io
import math
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
FILES = ["property", "train.idx", "train.rec", "verification.bin"]


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
    ],
)
def test_nonsense_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(DataError, match=f"^{name} = ") as caught:
        synthesize(tmp_path / "out", **{**SMALL, name: value})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_records_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"already holds a train\.rec"):
        synthesize(tmp_path, **SMALL)
    assert _contents(tmp_path) == {"train.rec": b"mine"}


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(DataError, match="cannot be written"):
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
