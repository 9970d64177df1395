"""DALI and the decoder without it give the same bits on the CPU: every kind of file, every augmentation, any split."""

import importlib.util
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline import Augmentation, DataError, Loader, RecordReader, RecordWriter, make_loader

pytestmark = pytest.mark.unit

SIZE, NUM_IMAGES = 40, 47
LEVEL = 1 / 127.5  # one of the 256 grey levels
HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
DECODERS = [pytest.param("dali", marks=needs_dali), "cpu"]
EVERYTHING = Augmentation(
    crop=0.6, crop_scale=(0.5, 1.4), crop_shift=0.2, down_up=0.5, down_up_scale=(0.1, 0.9), blur=0.5,
    blur_sigma=(0.3, 4.0), color=0.6, brightness=0.5, contrast=0.5, saturation=0.9, hue=90.0, grayscale=0.3,
)  # fmt: skip
AUGMENTATIONS = {
    "flip": Augmentation(flip=0.3),
    "crop": Augmentation(crop=0.9, crop_scale=(0.3, 1.6), crop_shift=0.3),
    "down_up": Augmentation(down_up=0.9, down_up_scale=(0.05, 1.0)),
    "color": Augmentation(color=0.9, brightness=0.9, contrast=0.9, saturation=0.9, hue=120.0),
    "grayscale": Augmentation(grayscale=0.5),
    "blur": Augmentation(blur=0.9, blur_sigma=(0.2, 5.0)),
    "everything": EVERYTHING,
}
# The exponential of the blur's window comes from two libraries; one sigma in a thousand rounds differently.
TOLERANCE = {"blur": 1e-4 * LEVEL, "everything": 1e-3 * LEVEL}


def photo(seed: int, height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    return Image.fromarray((smooth + rng.normal(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def files_of_every_kind() -> dict[str, bytes]:
    square, odd = photo(1, SIZE, SIZE), photo(2, 37, 51)
    alpha = Image.merge("RGBA", (*odd.split(), odd.convert("L")))
    grey = np.asarray(odd.convert("L")).astype(np.uint16)
    kinds = {
        f"{height}x{width}, {name}, quality {quality}": encoded(
            photo(3, height, width), subsampling=subsampling, quality=quality
        )
        for (height, width), (name, subsampling), quality in itertools.product(
            [(SIZE, SIZE), (37, 51), (1, 1), (8, 9), (131, 17), (250, 250)],
            [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)],
            [30, 95],
        )
    }
    return kinds | {
        "4:1:1": encoded(odd, subsampling="4:1:1"),
        "progressive": encoded(odd, progressive=True),
        "restart markers": encoded(odd, restart_marker_blocks=3),
        "quality 1": encoded(odd, quality=1),
        "stored as RGB": encoded(odd, keep_rgb=True),
        "grey JPEG": encoded(odd.convert("L")),
        "grey progressive JPEG": encoded(square.convert("L"), progressive=True),
        "CMYK JPEG": encoded(odd.convert("CMYK")),
        "bytes behind the end": encoded(square) + b"more",
        **{f"orientation {number}": encoded(odd, exif=turned(number)) for number in range(1, 9)},
        "PNG": encoded(odd, "PNG"),
        "PNG with alpha": encoded(alpha, "PNG"),
        "grey PNG": encoded(odd.convert("L"), "PNG"),
        "grey PNG with alpha": encoded(alpha.convert("LA"), "PNG"),
        "PNG with palette": encoded(square.quantize(50), "PNG"),
        "PNG of 1 bit": encoded(odd.convert("1"), "PNG"),
        "grey PNG of 16 bits": encoded(Image.fromarray(grey * 250 + grey % 7), "PNG"),
        "turned PNG": encoded(odd, "PNG", exif=turned(6)),
        "WebP": encoded(odd, "WEBP"),
        "BMP": encoded(square, "BMP"),
    }


def write(path: Path, files: list[bytes]) -> Path:
    with RecordWriter(path) as writer:
        for number, content in enumerate(files):
            writer.write(number // 2, content)
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = [(SIZE, SIZE), (SIZE, SIZE), (61, 33)]
    files = [encoded(photo(number, *sizes[number % 3])) for number in range(NUM_IMAGES)]
    return write(tmp_path_factory.mktemp("records") / "train.rec", files)


def loader_of(records: Path | RecordReader, **settings: Any) -> Loader:
    return make_loader(records, **{"batch_size": 12, "seed": 4, "image_size": SIZE, "drop_last": False, **settings})


def images_of(loader: Loader) -> torch.Tensor:
    return torch.cat([batch.images for batch in loader])


@needs_dali
def test_both_decoders_give_the_same_pixels_of_every_kind_of_file(tmp_path: Path) -> None:
    files = files_of_every_kind()
    path = write(tmp_path / "train.rec", list(files.values()))
    dali, pillow = (images_of(loader_of(path, decoder=name, order="sequential")) for name in ("dali", "cpu"))
    different = {name: float((a - b).abs().max() / LEVEL) for name, a, b in zip(files, dali, pillow, strict=True)}
    assert {name: levels for name, levels in different.items() if levels} == {}
    assert len(files) == len(pillow) == 63


@needs_dali
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_both_decoders_augment_alike(records: Path, name: str) -> None:
    settings = {"augmentation": AUGMENTATIONS[name]}
    dali, pillow = (loader_of(records, decoder=decoder, **settings) for decoder in ("dali", "cpu"))
    for _ in range(3):  # epochs
        left, right = images_of(dali), images_of(pillow)
        assert (left - right).abs().max() <= TOLERANCE.get(name, 0)
    assert not torch.equal(left, images_of(loader_of(records, decoder="dali", flip=False)))


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_image_depends_on_seed_epoch_and_index_alone(records: Path, decoder: str) -> None:
    """At any split, with any prefetch, after a resume at another split, and whoever shares its batch."""
    settings = {"decoder": decoder, "augmentation": EVERYTHING, "drop_last": True}
    whole = loader_of(records, **settings)
    steps = [batch.images for batch in itertools.chain(whole, whole)]
    assert len(steps) == 6
    for world_size in (2, 3):
        ranks = [
            loader_of(
                records, batch_size=12 // world_size, rank=rank, world_size=world_size, prefetch=1 + rank,
                num_threads=1 + rank, **settings,
            )
            for rank in range(world_size)
        ]  # fmt: skip
        iterators = [itertools.chain(rank, rank) for rank in ranks]
        for step in range(4):
            assert torch.equal(torch.cat([next(each).images for each in iterators]), steps[step])
        resumed = loader_of(records, **settings)
        resumed.load_state_dict(ranks[0].state_dict())
        assert all(torch.equal(batch.images, steps[4 + n]) for n, batch in enumerate(resumed))
    alone = loader_of(records, decoder=decoder, augmentation=EVERYTHING, batch_size=1, seed=4)
    assert torch.equal(torch.cat([next(each).images for each in [iter(alone)] for _ in range(12)]), steps[0])


@pytest.mark.parametrize("decoder", DECODERS)
def test_flip_false_wins(records: Path, decoder: str) -> None:
    never = images_of(loader_of(records, decoder=decoder, flip=False, augmentation=Augmentation(flip=1.0)))
    always = images_of(loader_of(records, decoder=decoder, augmentation=Augmentation(flip=1.0)))
    assert torch.equal(never.flip(3), always)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", ["TIFF", "PPM", "JPEG2000", "GIF", "cut short"])
def test_both_decoders_refuse_the_same(records: Path, tmp_path: Path, decoder: str, kind: str) -> None:
    bad = encoded(photo(1, SIZE, SIZE), kind) if kind.isupper() else encoded(photo(1, SIZE, SIZE))[:400]
    with RecordReader(records) as reader:
        files = [bad if number == 13 else reader[number].jpeg for number in range(20)]
    path = write(tmp_path / "train.rec", files)
    loader = loader_of(path, decoder=decoder, augmentation=EVERYTHING)
    with pytest.raises(DataError, match=r"image 13 \(identity 6; .*cannot be decoded"):
        list(loader)
