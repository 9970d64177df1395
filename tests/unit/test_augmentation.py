"""Augmentation: its configuration, what is drawn for which image, and what each step does to pixels."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_pipeline import Augmentation, DataError
from data_pipeline.augment_image import augment_image
from data_pipeline.augmentation_draws import Draws, draw, draw_flips
from data_pipeline.resample import resample

pytestmark = pytest.mark.unit

EVERYTHING = Augmentation(crop=0.6, down_up=0.5, blur=0.4, color=0.7, grayscale=0.3)
FIELDS = ("boxes", "small", "sigmas", "colors")


def drawn(augmentation: Augmentation, count: int = 1009, seed: int = 3, epoch: int = 1, size: int = 112) -> Draws:
    return draw(augmentation, np.arange(count), seed, epoch, size)


def always(**settings: Any) -> Augmentation:
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return Augmentation(**off | settings)


def picture(height: int = 37, width: int = 51, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_all_but_the_flip_are_off_by_default() -> None:
    augmentation = Augmentation()
    assert augmentation.only_flips
    assert augmentation.flip == 0.5
    image = picture(16, 16)
    assert augment_image(image, 16, drawn(augmentation, 1, size=16), 0) is image


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 1.5}, r"crop is 1.5: give a probability in \[0, 1\]"),
        ({"flip": -0.1}, "flip is -0.1: give a probability"),
        ({"blur": math.nan}, "blur is nan"),
        ({"color": True}, "color is True: give a probability"),
        ({"crop_scale": (1.0, 0.5)}, r"crop_scale is \[1.0, 0.5\]: the lowest comes first"),
        ({"crop_scale": 0.5}, "crop_scale is 0.5: give two numbers"),
        ({"crop_scale": (0.0, 1.0)}, r"crop_scale is 0.0: give shares of the picture's side in \[0.1, 2\]"),
        ({"crop_shift": 0.6}, "crop_shift is 0.6"),
        ({"down_up_scale": (0.5, 1.5)}, "down_up_scale is 1.5: give shares of the image size"),
        ({"blur_sigma": (0.5, 11)}, r"blur_sigma is 11: give pixels in \[0.1, 10\]"),
        ({"hue": math.inf}, "hue is inf: give degrees"),
        ({"contrast": 1.1}, "contrast is 1.1"),
        ({"grayscale": "yes"}, "grayscale is 'yes'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^augmentation: {message}") as caught:
        Augmentation(**settings)
    assert "\n" not in str(caught.value)


def test_flips_are_those_of_old_runs() -> None:
    assert np.flatnonzero(draw_flips(0.5, np.arange(16), 0, 0)).tolist() == [0, 4, 6, 7, 8, 13, 14]
    indices = np.arange(10_000)
    assert not draw_flips(0.0, indices, 1, 1).any()
    assert draw_flips(1.0, indices, 1, 1).all()
    assert draw_flips(0.2, indices, 1, 1).mean() == pytest.approx(0.2, abs=0.02)


def test_draws_are_pinned() -> None:
    # A run in the middle of an epoch is continued by later versions: these numbers may never change.
    found = draw(EVERYTHING, np.array([0, 1, 2, 3, 4, 2**40]), 0, 0, 112)
    boxes = [
        [0.080966, 0.094833, 0.958492, 0.972360], [0.070605, 0.065014, 1.001836, 0.996245],
        [0.030517, -0.011889, 0.991105, 0.948700], [0, 0, 1, 1], [0.037529, 0.032942, 0.954272, 0.949685], [0, 0, 1, 1],
    ]  # fmt: skip
    assert np.allclose(found.boxes, boxes, atol=2e-6)
    assert found.small.tolist() == [82, 56, 112, 56, 112, 63]
    assert np.allclose(found.sigmas, [0, 0.51254, 0.95870, 0.59462, 1.26575, 0], atol=1e-5)
    color = [
        [1.32069, -0.15819, 0.06968, -3.85151],
        [0.00817, 1.29566, -0.07165, -3.85151],
        [-0.27419, 0.08801, 1.41836, -3.85151],
    ]
    assert np.allclose(found.colors[0], color, atol=1e-5)
    assert np.array_equal(found.colors[1], np.eye(3, 4))
    assert np.allclose(found.colors[4], [[0.299, 0.587, 0.114, 0]] * 3)


def test_draws_depend_on_seed_epoch_and_index_alone() -> None:
    whole = drawn(EVERYTHING)
    chosen = np.random.default_rng(0).permutation(1009)[:101]
    part = draw(EVERYTHING, chosen, 3, 1, 112)
    for name in FIELDS:
        assert np.array_equal(getattr(part, name), getattr(whole, name)[chosen])
        for other in (drawn(EVERYTHING, epoch=2), drawn(EVERYTHING, seed=4)):
            assert not np.array_equal(getattr(other, name), getattr(whole, name))


@pytest.mark.parametrize("name", ["crop", "down_up", "blur", "color"])
def test_one_augmentation_does_not_change_the_draws_of_another(name: str) -> None:
    without, of_all = drawn(dataclasses.replace(EVERYTHING, **{name: 0.0})), drawn(EVERYTHING)
    own = {"crop": "boxes", "down_up": "small", "blur": "sigmas", "color": "colors"}[name]
    for field in FIELDS:
        assert np.array_equal(getattr(without, field), getattr(of_all, field)) == (field != own)


def test_streams_are_independent_and_as_frequent_as_asked() -> None:
    found = drawn(EVERYTHING, 40_000)
    happened = {
        "flip": (0.5, draw_flips(0.5, np.arange(40_000), 3, 1)),
        "crop": (0.6, (found.boxes != [0, 0, 1, 1]).any(axis=1)),
        "down_up": (0.5, found.small != 112),
        "blur": (0.4, found.sigmas > 0),
        "gray": (0.3, (found.colors[:, 0] == found.colors[:, 1]).all(axis=1)),
        "recolored": (1 - 0.3 * 0.7, found.recolored()),
    }
    for probability, mask in happened.values():
        assert mask.mean() == pytest.approx(probability, abs=0.015)
    for name, (_, mask) in happened.items():
        for other, (share, both) in happened.items():
            if name != other and {name, other} != {"gray", "recolored"}:
                assert both[mask].mean() == pytest.approx(share, abs=0.03)
    sides = found.boxes[:, 2] - found.boxes[:, 0]
    assert 0.85 <= sides.min() < 0.86
    assert np.allclose(sides, found.boxes[:, 3] - found.boxes[:, 1], atol=1e-6)
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - 0.5
    assert np.abs(centers).max() == pytest.approx(0.04, abs=0.001)
    assert abs(np.corrcoef(centers.T)[0, 1]) < 0.03
    assert set(found.small.tolist()) == {112, *range(28, 85)}
    assert found.sigmas[found.sigmas > 0].min() >= 0.4
    assert found.sigmas.max() <= 1.5


def triangle_weights(size: int, output: int, start: float, end: float) -> NDArray[np.float64]:
    """[output, size]: the definition, in float64; weight outside the picture goes to its edge pixels."""
    scale = (end - start) * size / output
    radius = max(scale, 1.0)
    weights = np.zeros((output, size))
    for x in range(output):
        center = start * size + (x + 0.5) * scale - 0.5
        for place in range(math.floor(center - radius), math.ceil(center + radius) + 1):
            weights[x, min(max(place, 0), size - 1)] += max(0.0, 1 - abs(place - center) / radius)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.13, 0.2, 0.71, 0.78), (-0.1, 0.05, 1.02, 1.17)])
@pytest.mark.parametrize("size", [(37, 51), (112, 90), (16, 16)])
def test_scaling_is_the_triangle_filter(size: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    for output in (9, 16, 40, 113):
        rows = triangle_weights(size[0], output, box[0], box[2])
        columns = triangle_weights(size[1], output, box[1], box[3])
        truth = np.einsum("yi,ijc,xj->yxc", rows, picture(*size).astype(np.float64), columns, optimize=True)
        assert np.abs(resample(picture(*size), output, output, box) - truth).max() < 0.01


def test_scaling_is_pillows_but_for_rounding_and_the_edge() -> None:
    ours = resample(picture(112, 90), 40, 40)
    pillows = np.asarray(Image.fromarray(picture(112, 90)).resize((40, 40), Image.Resampling.BILINEAR))
    assert np.abs(ours - pillows)[1:-1, 1:-1].max() < 1.5


def test_a_crop_shows_its_box() -> None:
    image = picture(40, 40)
    assert np.array_equal(resample(image, 20, 20, (0.25, 0.5, 0.75, 1.0)), image[10:30, 20:40])
    # Outside the picture its edge goes on.
    shifted = resample(image, 40, 40, (0.25, -0.25, 1.25, 0.75))
    assert np.array_equal(shifted[:30, 10:], image[10:, :30])
    assert np.array_equal(shifted[5, :10], np.repeat(image[15, :1], 10, axis=0))
    assert np.array_equal(shifted[30:, 20], np.repeat(image[39:, 10], 10, axis=0))


def test_scaling_to_the_same_size_changes_no_bit() -> None:
    for size in (1, 2, 7, 112):
        assert np.array_equal(resample(picture(size, size), size, size), picture(size, size))


def test_a_blur_is_a_gaussian() -> None:
    draws = drawn(always(blur=1.0, blur_sigma=(1.3, 1.3)), 1, size=41)
    image = np.zeros((41, 41, 3), dtype=np.uint8)
    image[20, 20] = 200
    blurred = augment_image(image, 41, draws, 0)
    offsets = np.arange(-20, 21)
    window = np.where(abs(offsets) <= 4, np.exp(-(offsets**2) / (2 * 1.3**2)), 0)
    window /= window.sum()
    assert np.allclose(blurred[..., 1], 200 * np.outer(window, window), atol=1e-4)
    flat = np.full((41, 41, 3), 77, dtype=np.uint8)
    assert np.allclose(augment_image(flat, 41, draws, 0), 77, atol=1e-4)


def test_down_up_loses_detail_and_keeps_the_mean() -> None:
    board = np.indices((48, 48)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    low = augment_image(image, 48, drawn(always(down_up=1.0, down_up_scale=(0.25, 0.25)), 1, size=48), 0)
    assert low.shape == (48, 48, 3)
    assert low.std() < 2
    assert low.mean() == pytest.approx(127.5, abs=1)


def test_colors_change_as_named() -> None:
    image = picture(16, 16)
    pixels = image.astype(np.float64)
    luma = (pixels @ [0.299, 0.587, 0.114])[..., None]

    def recolored(**settings: Any) -> NDArray[np.float64]:
        return augment_image(image, 16, drawn(always(**settings), 1, seed=5, size=16), 0).astype(np.float64)

    assert np.allclose(recolored(grayscale=1.0), np.repeat(luma, 3, axis=2), atol=1e-4)
    factor = drawn(always(color=1.0, brightness=0.5), 1, seed=5).colors[0, 0, 0]
    assert 0.5 <= factor <= 1.5
    assert np.allclose(recolored(color=1.0, brightness=0.5), (pixels * factor).clip(0, 255), atol=1e-3)
    shift = drawn(always(color=1.0, contrast=0.5), 1, seed=5).colors[0]
    assert np.allclose(shift[:, 3], 127.5 * (1 - shift[0, 0]), atol=1e-4)
    turned, faded = recolored(color=1.0, hue=90.0), recolored(color=1.0, saturation=1.0)
    unclipped = ((turned > 0) & (turned < 255)).all(axis=2) & ((faded > 0) & (faded < 255)).all(axis=2)
    assert unclipped.mean() > 0.3
    for changed in (turned, faded):
        assert np.abs(changed - pixels).max() > 5
        assert np.allclose((changed @ [0.299, 0.587, 0.114])[unclipped], luma[unclipped][:, 0], atol=0.01)
    assert recolored(color=1.0, brightness=1.0, contrast=1.0, saturation=1.0, hue=180.0).min() >= 0
    assert recolored(color=1.0, brightness=1.0, contrast=1.0, saturation=1.0, hue=180.0).max() <= 255
