"""Landmarks to aligned crops."""

import numpy as np
import pytest
import torch

from trainer.evaluation.alignment import ARCFACE_TEMPLATE, aligned_crop, similarity

pytestmark = pytest.mark.unit


def turned(points, angle, scale, shift):
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ matrix.T + shift


def test_similarity_by_hand():
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    # A quarter turn, twice as large, moved by (3, 4): (x, y) -> (3 - 2y, 4 + 2x).
    found = similarity(square, np.array([[3.0, 4.0], [3.0, 6.0], [1.0, 6.0], [1.0, 4.0]]))
    np.testing.assert_allclose(found, [[0, -2, 3], [2, 0, 4]], atol=1e-12)


def test_similarity_is_umeyamas():
    """Against the singular-value solution of Umeyama, on landmarks that no similarity fits exactly."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        target = ARCFACE_TEMPLATE + generator.normal(0, 3, (5, 2))
        points = turned(target, generator.uniform(-1, 1), generator.uniform(0.5, 2), [40, -7])
        points += generator.normal(0, 2, (5, 2))
        p, t = points - points.mean(0), target - target.mean(0)
        u, s, vt = np.linalg.svd(t.T @ p / 5)
        sign = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
        linear = (s * sign).sum() / p.var(0).sum() * (u * sign) @ vt
        found = similarity(points, target)
        np.testing.assert_allclose(found[:, :2], linear, atol=1e-10)
        np.testing.assert_allclose(found[:, 2], target.mean(0) - linear @ points.mean(0), atol=1e-8)


def test_an_aligned_picture_stays_as_it_is():
    picture = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    crop = aligned_crop(picture, ARCFACE_TEMPLATE, 112)
    assert torch.equal(crop, torch.from_numpy(picture.transpose(2, 0, 1)).float())


def test_whole_shifts_copy_pixels_and_the_outside_is_black():
    picture = np.random.default_rng(2).integers(1, 256, (120, 130, 3), dtype=np.uint8)
    crop = aligned_crop(picture, ARCFACE_TEMPLATE + np.array([20.0, -5.0]), 112).numpy()
    expected = picture[:107, 20:].transpose(2, 0, 1)
    np.testing.assert_array_equal(crop[:, 5:, :110], expected)
    assert not crop[:, :5].any()
    assert not crop[:, :, 110:].any()


def test_turned_and_enlarged_faces_come_back():
    """A smooth picture seen turned and 1.7 times as large gives nearly the crop of the upright one."""
    y, x = np.mgrid[0:112, 0:112]
    upright = np.stack([127 + 100 * np.sin(x / 17 + k) * np.cos(y / 23 - k) for k in range(3)], axis=-1)
    angle, scale, shift = 0.3, 1.7, np.array([70.0, 30.0])
    rows, columns = np.mgrid[0:320, 0:320]
    back = turned(np.stack([columns, rows], -1) - shift, -angle, 1 / scale, 0.0)
    seen = np.stack(
        [127 + 100 * np.sin(back[..., 0] / 17 + k) * np.cos(back[..., 1] / 23 - k) for k in range(3)], axis=-1
    )
    crop = aligned_crop(seen.round().astype(np.uint8), turned(ARCFACE_TEMPLATE, angle, scale, shift), 112)
    assert np.abs(crop.numpy().transpose(1, 2, 0) - upright).max() < 3


def test_other_sides_scale_the_template_about_the_corner():
    picture = np.zeros((112, 112, 3), np.uint8)
    picture[:, 56:] = 200
    crop = aligned_crop(picture, ARCFACE_TEMPLATE, 56).numpy()
    assert (crop[:, :, :28] == 0).all()
    assert (crop[:, :, 28:] == 200).all()


@pytest.mark.parametrize("landmarks", [np.full((5, 2), 30.0), np.zeros((5, 2))])
def test_landmarks_that_are_no_face(landmarks):
    with pytest.raises(ValueError, match="landmarks"):
        aligned_crop(np.zeros((20, 20, 3), np.uint8), landmarks, 112)
