"""What InsightFace does with exported models; run by the interpreter of ``.venv-opencv``, which cannot import ``pfc``.

usage: insightface_side.py FOLDER MODEL.onnx...

FOLDER is that of ``opencv_side.py``. ``MODEL.onnx.insightface.npz`` gets how the model was taken, the features of the
aligned faces and those of the photos by their five points.
"""

import sys
from pathlib import Path

import numpy as np
from insightface.app.common import Face  # type: ignore[import-not-found, unused-ignore]
from insightface.model_zoo import get_model  # type: ignore[import-not-found, unused-ignore]

folder = Path(sys.argv[1])
faces, photos, rows = (np.load(folder / f"{name}.npy") for name in ("faces", "photos", "rows"))
for path in sys.argv[2:]:
    model = get_model(path, providers=["CPUExecutionProvider"])
    model.prepare(ctx_id=-1)
    of_photos = [
        model.get(photo, Face(kps=row[4:14].reshape(5, 2))) for photo, row in zip(photos, rows, strict=True)
    ]  # fmt: skip
    np.savez(
        f"{path}.insightface.npz",
        taken=np.array([model.taskname, str(model.input_mean), str(model.input_std)]),
        features=model.get_feat(list(faces)),
        of_photos=np.stack(of_photos),
    )
