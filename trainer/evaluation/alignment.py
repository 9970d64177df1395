"""Five landmarks to the aligned crop that face models are trained on.

Pixel (x, y) is the centre of column x of row y, as in OpenCV and in the landmark files of the field.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ARCFACE_SIDE = 112
# Left eye, right eye, nose, left and right mouth corner in a 112x112 crop: the template of ArcFace (Deng et al., CVPR
# 2019), which is SphereFace's of 96x112 shifted by 8 pixels; arcface_torch's eval_ijbc.py has the same numbers.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def similarity(points: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2, 3] matrix of the rotation, scaling and shift that takes points [K, 2] nearest to targets [K, 2].

    As complex numbers, t = m p + b with m = sum conj(p - mean p) (t - mean t) / sum |p - mean p|^2: least squares over
    similarities without reflection, which is Umeyama's solution (PAMI 1991) wherever no reflection fits better.

    Raises:
        ValueError: all points are one.
    """
    p, t = points[:, 0] + 1j * points[:, 1], targets[:, 0] + 1j * targets[:, 1]
    centred = p - p.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if not spread > 1e-9:
        raise ValueError("the landmarks are all at one place")
    m = complex(np.sum(np.conj(centred) * (t - t.mean())) / spread)
    b = complex(t.mean() - m * p.mean())
    return np.array([[m.real, -m.imag, b.real], [m.imag, m.real, b.imag]])


def aligned_crop(picture: NDArray[np.uint8], landmarks: NDArray[np.float64], side: int) -> Tensor:
    """[H, W, 3] uint8 and its landmarks [5, 2] -> [3, side, side] float32, whole numbers of 0 to 255.

    Bilinear, black outside of the picture, rounded to whole values, as cv2.warpAffine with borderValue=0: to one unit
    in OpenCV 5; OpenCV 4 looks up pixels in steps of 1/32, so values differ by a few units at edges. For sides other
    than 112 the template is scaled about the crop's corner: (x + 0.5) side / 112 - 0.5.

    Raises:
        ValueError: as ``similarity``.
    """
    scale = side / ARCFACE_SIDE
    forward = similarity(landmarks, (ARCFACE_TEMPLATE + 0.5) * scale - 0.5)
    if not abs(np.linalg.det(forward[:, :2])) > 1e-9:
        raise ValueError("the landmarks are no face's")
    backward = np.linalg.inv(forward[:, :2])
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    places = np.stack((columns, rows), axis=-1) @ backward.T - backward @ forward[:, 2]
    height, width = picture.shape[:2]
    # grid_sample's -1 and 1 are the outer edges of the outermost pixels.
    grid = (places + 0.5) * (2 / np.array([width, height])) - 1
    pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float()
    crop = torch.nn.functional.grid_sample(
        pixels, torch.from_numpy(grid.astype(np.float32))[None], mode="bilinear", padding_mode="zeros",
        align_corners=False,
    )  # fmt: skip
    return crop[0].round()
