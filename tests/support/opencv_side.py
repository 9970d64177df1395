"""What OpenCV does with exported models; run by an interpreter that has it, and may not have ``pfc``.

usage: opencv_side.py FOLDER MODEL.onnx...

In FOLDER lie ``faces.npy`` (aligned, [M, 112, 112, 3] uint8 BGR), ``photos.npy`` [K, height, width, 3] and ``rows.npy``
[K, 15] as FaceDetectorYN gives them. For each model ``MODEL.onnx.VERSION.npz`` gets the features of the faces, and of
the photos what alignCrop, feature and match make of them. Prints the version of OpenCV.
"""

import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np

folder = Path(sys.argv[1])
faces, photos, rows = (np.load(folder / f"{name}.npy") for name in ("faces", "photos", "rows"))
for model in sys.argv[2:]:
    recognizer = cv2.FaceRecognizerSF.create(model, "")
    features = np.concatenate([recognizer.feature(face).copy() for face in faces])
    aligned = [recognizer.alignCrop(photo, row[None]).copy() for photo, row in zip(photos, rows, strict=True)]
    of_photos = [recognizer.feature(face).copy() for face in aligned]
    # match() normalises what it is given, in place.
    pairs = [(one.copy(), other.copy()) for one, other in product(of_photos, repeat=2)]
    cosines = [recognizer.match(*pair, cv2.FaceRecognizerSF_FR_COSINE) for pair in pairs]
    distances = [recognizer.match(*pair, cv2.FaceRecognizerSF_FR_NORM_L2) for pair in pairs]
    net = cv2.dnn.readNet(model)  # without the recogniser a batch can be of any size
    net.setInput(cv2.dnn.blobFromImages(list(faces), swapRB=True))
    np.savez(
        f"{model}.{cv2.__version__}.npz",
        features=features,
        batch=net.forward(),
        aligned=np.stack(aligned),
        of_photos=np.concatenate(of_photos),
        cosines=np.array(cosines).reshape(len(photos), -1),
        distances=np.array(distances).reshape(len(photos), -1),
    )
print(cv2.__version__)
