"""Images that cannot be used: raised or replaced, the same with both decoders, at any world size, after a resume."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_images import DAMAGES, SIZE, broken_tables, not_an_image, picture, without_end_marker, write_images
from damaged_images import write_with_bad as write
from PIL import Image

from data_pipeline import Batch, DataError, Loader, RecordReader, make_loader
from data_pipeline.errors import BadRecordError
from data_pipeline.image_fault import ImageCheck
from data_pipeline.replacement import replacement

pytestmark = pytest.mark.unit

NUM_IMAGES = 41
HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
DECODERS = [pytest.param("dali", marks=pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")), "cpu"]
BAD = {0: not_an_image, 7: broken_tables, 8: broken_tables, 19: without_end_marker, 40: broken_tables}
REASONS = {0: "undecodable", 7: "undecodable", 8: "undecodable", 19: "truncated", 40: "undecodable"}


def loader_of(records: Path | RecordReader, **settings: Any) -> Loader:
    return make_loader(
        records, **{"batch_size": 6, "image_size": SIZE, "drop_last": False, "bad_images": "skip", **settings}
    )


def same(left: Batch, right: Batch) -> bool:
    return (
        torch.equal(left.indices, right.indices)
        and torch.equal(left.identities, right.identities)
        and torch.equal(left.images, right.images)
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sound"), NUM_IMAGES, {})


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("damaged"), NUM_IMAGES, BAD)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_each_fault_is_raised_with_its_reason_or_skipped(tmp_path: Path, decoder: str, damage: str) -> None:
    how, reason = DAMAGES[damage]
    records = write(tmp_path, NUM_IMAGES, {11: how})
    pattern = r"image 11 \(identity 5; .*train\.rec, record 12 at byte \d+\) .*pfc data verify .*bad_images = \"skip\""
    with pytest.raises(BadRecordError, match=pattern) as caught:
        list(loader_of(records, decoder=decoder, bad_images="raise"))
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    loader = loader_of(records, decoder=decoder)
    assert sum(len(batch.indices) for batch in loader) == NUM_IMAGES
    assert dict(loader.skipped) == {reason: 1}


@pytest.mark.parametrize("decoder", DECODERS)
def test_only_the_bad_ones_are_replaced_and_the_others_keep_their_bits(
    sound: Path, damaged: Path, decoder: str
) -> None:
    settings = {"decoder": decoder, "seed": 3}
    whole = loader_of(sound, **settings)
    loader = loader_of(damaged, **settings)
    for epoch in range(3):  # the second time the bad ones are known
        seen = 0
        for good, batch in zip(whole, loader, strict=True):
            images = {int(index): image for index, image in zip(good.indices, good.images, strict=True)}
            assert len(batch.indices) == len(good.indices)
            for wanted, index, image in zip(good.indices.tolist(), batch.indices.tolist(), batch.images, strict=True):
                if wanted in BAD:
                    seen += 1
                    tries = (
                        replacement(wanted, attempt, seed=3, epoch=epoch, num_images=NUM_IMAGES) for attempt in range(9)
                    )
                    assert index == next(number for number in tries if number not in BAD)
                    assert batch.identities[batch.indices == index][0] == index // 2
                else:
                    assert index == wanted
                    assert torch.equal(image, images[wanted])
        assert seen == len(BAD)
    assert dict(loader.skipped) == {"undecodable": 12, "truncated": 3}
    assert loader.bad_images.known == len(BAD)
    assert set(loader.bad_images.first) == {"undecodable", "truncated"}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("prefetch", [1, 3])
def test_several_bad_ones_in_a_batch_first_and_last(tmp_path: Path, decoder: str, prefetch: int) -> None:
    bad = dict.fromkeys([0, 5, 6, 7, 8, 9, 10, 11, 17], broken_tables)  # a whole batch too
    records = write(tmp_path, NUM_IMAGES, bad)
    loader = loader_of(records, decoder=decoder, order="sequential", prefetch=prefetch)
    indices = [batch.indices.tolist() for batch in loader]
    assert [len(each) for each in indices] == [6] * 6 + [5]
    flat = [index for each in indices for index in each]
    assert not set(flat) & bad.keys()
    assert all(index == place for place, index in enumerate(flat) if place not in bad)


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_both_decoders_replace_the_same(damaged: Path) -> None:
    dali, cpu = (loader_of(damaged, decoder=name) for name in ("dali", "cpu"))
    for left, right in zip(dali, cpu, strict=True):
        assert torch.equal(left.indices, right.indices)
        assert (left.images - right.images).abs().max() < 0.01 / 127.5
    assert dali.skipped == cpu.skipped


@pytest.mark.parametrize("decoder", DECODERS)
def test_any_world_size_gives_the_same_global_batches(damaged: Path, decoder: str) -> None:
    alone = loader_of(damaged, decoder=decoder)
    expected = list(alone)
    for world_size in (2, 3):
        ranks = [
            loader_of(damaged, decoder=decoder, batch_size=6 // world_size, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for whole, *parts in zip(expected, *ranks, strict=True):
            joined = Batch(
                *(torch.cat([getattr(part, name) for part in parts]) for name in ("images", "identities", "indices"))
            )
            assert same(whole, joined)
        assert sum((rank.skipped for rank in ranks), start=type(alone.skipped)()) == alone.skipped


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("batches", [1, 4])
def test_a_resumed_loader_replaces_the_same(damaged: Path, decoder: str, batches: int) -> None:
    original = loader_of(damaged, decoder=decoder)
    list(original)
    iterator = iter(original)
    for _ in range(batches):
        next(iterator)
    resumed = loader_of(damaged, decoder=decoder)  # knows of no bad image
    resumed.load_state_dict(json.loads(json.dumps(original.state_dict())))
    assert all(same(left, right) for left, right in zip(iterator, resumed, strict=True))


@pytest.mark.parametrize("decoder", DECODERS)
def test_more_than_the_limit_is_an_error_that_says_what_and_where(damaged: Path, decoder: str) -> None:
    loader = loader_of(damaged, decoder=decoder, max_bad_images=4)
    pattern = r"5 bad images \(4 undecodable, 1 truncated\) are more than max_bad_images allows \(4 of 41\).*record \d+"
    with pytest.raises(DataError, match=pattern + r" at byte \d+.*pfc data verify .*train\.rec"):
        list(loader)
    assert len(list(loader_of(damaged, decoder=decoder, max_bad_images=5))) == 7
    assert len(list(loader_of(damaged, decoder=decoder, max_bad_images=0.13))) == 7  # int(5.33)
    with pytest.raises(DataError, match=r"are more than max_bad_images allows \(4 of 41\)"):
        list(loader_of(damaged, decoder=decoder, max_bad_images=0.12))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("how", [not_an_image, broken_tables])
def test_all_bad_ends_with_an_error(tmp_path: Path, decoder: str, how: Any) -> None:
    records = write(tmp_path, 8, dict.fromkeys(range(8), how))
    with pytest.raises(DataError, match=r"no sound image in 64 tries"):  # the default limit is 10 at least
        list(loader_of(records, decoder=decoder))
    with pytest.raises(DataError, match=r"3 bad images"):
        list(loader_of(records, decoder=decoder, max_bad_images=2))


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_lies_before_a_bad_image_comes_first(tmp_path: Path, decoder: str) -> None:
    for how in (without_end_marker, broken_tables):
        records = write(tmp_path, NUM_IMAGES, {20: how})
        loader = loader_of(records, decoder=decoder, bad_images="raise", order="sequential", prefetch=3)
        for _ in range(2):
            iterator = iter(loader)
            assert [next(iterator).indices[0] for _ in range(3)] == [0, 6, 12]
            with pytest.raises(BadRecordError, match="image 20"):
                next(iterator)


@pytest.mark.parametrize("decoder", DECODERS)
def test_another_size_is_resized_or_bad(tmp_path: Path, sound: Path, decoder: str) -> None:
    odd = {5: picture(5, 45, 70), 9: picture(9, 20, 20), 30: picture(30, 16, 16, kind="PNG")}
    records = write_images(tmp_path, [odd.get(number, picture(number)) for number in range(NUM_IMAGES)])
    assert sorted(torch.cat([batch.indices for batch in loader_of(records, decoder=decoder)]).tolist()) == list(
        range(NUM_IMAGES)
    )
    loader = loader_of(records, decoder=decoder, wrong_size="bad")
    assert not set(torch.cat([batch.indices for batch in loader]).tolist()) & odd.keys()
    assert dict(loader.skipped) == {"wrong_size": 3}
    with pytest.raises(BadRecordError, match=r"image 5 .* is bad: 70x45 pixels instead of 32x32") as caught:
        list(loader_of(records, decoder=decoder, wrong_size="bad", bad_images="raise", order="sequential"))
    assert caught.value.reason == "wrong_size"


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
def test_dali_failures_leave_no_threads_and_no_files_open(tmp_path: Path) -> None:
    records = write(tmp_path, NUM_IMAGES, dict.fromkeys(range(0, NUM_IMAGES, 9), broken_tables))

    def epoch() -> int:
        loader = loader_of(records, decoder="dali")
        list(loader)
        del loader
        return sum(1 for folder in ("task", "fd") for _ in Path("/proc/self", folder).iterdir())

    epoch()
    before = epoch()
    assert [epoch() for _ in range(4)][-1] <= before + 2


def test_an_image_that_announces_more_pixels_than_its_bytes_can_hold_is_bad() -> None:
    """Found by fuzzing: 700 bytes of JPEG that announced 16x8208 pixels took a megabyte to decode."""
    for kind in ("JPEG", "PNG"):
        for size in (16, 300, 1200):
            assert ImageCheck()(picture(0, size, size, kind=kind)) is None
        flat = io.BytesIO()
        Image.new("RGB", (1500, 1500), (9, 9, 9)).save(flat, kind)
        assert ImageCheck()(flat.getvalue()) is None
    jpeg = bytearray(picture(0))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = (60_000).to_bytes(2) * 2
    fault = ImageCheck()(bytes(jpeg))
    assert fault is not None
    assert fault.reason == "undecodable"
    assert "60000x60000 pixels are none, or too many" in fault.detail


@pytest.mark.parametrize(
    "settings",
    [
        {"bad_images": "ignore"}, {"wrong_size": "skip"}, {"max_bad_images": -1}, {"max_bad_images": 1.0},
        {"max_bad_images": float("nan")}, {"max_bad_images": -0.5},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(sound: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(settings))):
        loader_of(sound, decoder="cpu", **settings)
