"""How OpenCV, and InsightFace where it is installed, align faces; run by an interpreter that may not have ``pfc``.

usage: alignment_side.py FOLDER

In FOLDER lie ``any.onnx``, for FaceRecognizerSF to open, and ``faces.npz``: photos [K, height, width, 3] uint8,
rows [K, 15] as FaceDetectorYN gives them, matrices [K, 2, 3], template [5, 2]. ``VERSION.npz`` gets crops
[K, 112, 112, 3] and matrices. Prints the version of OpenCV.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

folder = Path(sys.argv[1])
given = np.load(folder / "faces.npz")
photos, rows, template = given["photos"], given["rows"], given["template"]
points = rows[:, 4:14].reshape(-1, 5, 2)
recognizer = cv2.FaceRecognizerSF.create(str(folder / "any.onnx"), "")
found = {
    "warped": [
        cv2.warpAffine(photo, matrix, (112, 112), borderValue=0)
        for photo, matrix in zip(photos, given["matrices"], strict=True)
    ],
    "aligned": [recognizer.alignCrop(photo, row[None]).copy() for photo, row in zip(photos, rows, strict=True)],
    # A threshold that takes every point in: one least-squares fit.
    "fitted": [
        cv2.estimateAffinePartial2D(each, template, method=cv2.RANSAC, ransacReprojThreshold=1e9)[0]
        for each in points.astype(np.float64)
    ],
}
if find_spec("insightface"):
    from insightface.utils.face_align import (  # type: ignore[import-not-found, unused-ignore]
        estimate_norm,
        norm_crop,
    )

    found["insightface_fitted"] = [estimate_norm(each) for each in points]
    found["insightface"] = [norm_crop(photo, each) for photo, each in zip(photos, points, strict=True)]
np.savez(folder / f"{cv2.__version__}.npz", **{name: np.stack(values) for name, values in found.items()})
print(cv2.__version__)
