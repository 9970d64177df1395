"""Aligned crops beside those of the programs that the field aligns with: OpenCV 5 of this environment, OpenCV 4 and
InsightFace of ``.venv-opencv`` (make venv-opencv)."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from commands import ROOT, run
from exportable import drawn_face, in_photo
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trainer.evaluation.alignment import ARCFACE_TEMPLATE, aligned_crop, similarity

OTHER_PYTHON = ROOT / ".venv-opencv" / "bin" / "python"
NEEDS_OTHER = pytest.mark.skipif(not OTHER_PYTHON.exists(), reason="no .venv-opencv with OpenCV 4: make venv-opencv")
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, NDArray[Any]]]:
    """Drawn faces in photos, turned and enlarged, with landmarks that no similarity fits, some crops beyond the border;
    the last photo is noise, which any shift of the sampling shows in."""
    folder = tmp_path_factory.mktemp("alignment")
    generator = np.random.default_rng(0)
    photos, rows = [], []
    for number in range(8):
        photo, row = in_photo(drawn_face(number), degrees=generator.uniform(-40, 40), scale=generator.uniform(0.7, 2.2))
        row[4:14] += generator.normal(0, 2, 10).astype(np.float32) + (90 if number % 4 == 3 else 0)
        photos.append(photo)
        rows.append(row)
    photos[-1] = generator.integers(0, 256, photos[-1].shape, dtype=np.uint8)
    points = np.stack(rows)[:, 4:14].reshape(-1, 5, 2).astype(np.float64)
    ours = {
        "matrices": np.stack([similarity(each, ARCFACE_TEMPLATE) for each in points]),
        "crops": np.stack(
            [
                aligned_crop(photo, each, 112).numpy().transpose(1, 2, 0)
                for photo, each in zip(photos, points, strict=True)
            ]
        ),
    }
    matrices = ours["matrices"]
    np.savez(folder / "faces.npz", photos=photos, rows=rows, matrices=matrices, template=ARCFACE_TEMPLATE)
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 112, 112]) for name in ("data", "fc1")]
    graph = helper.make_graph([helper.make_node("Relu", ["data"], ["fc1"])], "any", tensor[:1], tensor[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "any.onnx")
    return folder, ours


def elsewhere(python: str, folder: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    script = ROOT / "tests" / "support" / "alignment_side.py"
    ended = run([python, "-W", "ignore", str(script), str(folder)], cwd=folder)
    assert ended.code == 0, ended.err
    version = ended.out.split()[-1]
    return version, dict(np.load(folder / f"{version}.npz"))


def check(found: dict[str, NDArray[Any]], ours: dict[str, NDArray[Any]], name: str, largest: int, mean: float) -> None:
    """Grey values; ``mean`` over the drawn faces, without the noise."""
    off = np.abs(found[name].astype(np.float64) - ours["crops"])
    assert ours["crops"].std() > 20, "there is something to see"
    assert off.max() <= largest, name
    assert off[:-1].mean() <= mean, name


def test_opencv_5_gives_the_same_pixels(faces: tuple[Path, dict[str, NDArray[Any]]]) -> None:
    folder, ours = faces
    version, found = elsewhere(sys.executable, folder)
    assert version.startswith("5.")
    assert np.abs(found["fitted"] - ours["matrices"]).max() <= 2e-3, "pixels"
    for name in ("warped", "aligned"):
        check(found, ours, name, largest=1, mean=1e-3)


@NEEDS_OTHER
def test_opencv_4_and_insightface_differ_by_their_steps_of_a_thirty_second_pixel(
    faces: tuple[Path, dict[str, NDArray[Any]]],
) -> None:
    folder, ours = faces
    version, found = elsewhere(str(OTHER_PYTHON), folder)
    assert version.startswith("4.")
    # skimage's Umeyama on float32 landmarks.
    assert np.abs(found["insightface_fitted"] - ours["matrices"]).max() <= 2e-4, "pixels"
    assert np.abs(found["fitted"] - ours["matrices"]).max() <= 2e-3, "pixels"
    for name in ("warped", "aligned", "insightface"):
        check(found, ours, name, largest=8, mean=0.1)
