"""Exported models in the programs they are for: OpenCV 5 of this environment, OpenCV 4 and InsightFace of
``.venv-opencv`` (make venv-opencv), against torch."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, run
from exportable import as_tensor, calibrated, drawn_face, in_photo, normalised, save_weights
from numpy.typing import NDArray
from torch import nn

from data_pipeline.decode_image import decode_image
from data_pipeline.pairs import read_pairs
from trainer.backbones import BACKBONE_NAMES
from trainer.cli import main
from trainer.export.opencv_input import OpenCVInput

OTHER_PYTHON = ROOT / ".venv-opencv" / "bin" / "python"
REAL_FACES = ROOT.parent / "shared" / "faces" / "lfw_devtest.bin"
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]  # the first test waits until all networks are exported

LIMIT = 1e-5  # of an embedding's length, and of cosines
DRAWN = 4  # aligned faces
NEEDS_OTHER = pytest.mark.skipif(not OTHER_PYTHON.exists(), reason="no .venv-opencv with OpenCV 4: make venv-opencv")
OPENCV = [pytest.param("5.", id="opencv5"), pytest.param("4.", id="opencv4", marks=NEEDS_OTHER)]


@dataclass(frozen=True)
class Case:
    """full: 112x112 and 512 features, as published weights; else a small image that the graph makes itself."""

    backbone: str
    normalization: str = "batch"
    full: bool = False

    @property
    def name(self) -> str:
        return f"{self.backbone}_{self.normalization}{'_full' if self.full else ''}"

    def network(self) -> tuple[nn.Module, int]:
        size = 112 if self.full else 36 if self.backbone.startswith("vit") else 32
        dim = 512 if self.full else 24
        return calibrated(self.backbone, normalization=self.normalization, embedding_dim=dim, image_size=size), size


CASES = [
    *(Case(name, full=name in ("mobilefacenet", "vit_t")) for name in BACKBONE_NAMES),
    Case("mobilefacenet", "group"), Case("vit_t", "group"),
]  # fmt: skip
FULL = [case for case in CASES if case.full]


@dataclass(frozen=True)
class Exports:
    """folder: NAME.onnx of target opencv and NAME.plain.onnx of target onnx. networks: with OpenCV's input."""

    folder: Path
    faces: NDArray[np.uint8]
    networks: dict[str, OpenCVInput]

    def expected(self, case: Case, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.networks[case.name](as_tensor(pictures)).numpy()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("exports")
    networks = {}
    for case in CASES:
        module, size = case.network()
        weights = save_weights(folder / f"{case.name}.pt", module)
        assert main(["export", str(weights), "--target", "opencv", "--output", str(folder / f"{case.name}.onnx")]) == 0
        if case.full:
            plain = folder / f"{case.name}.plain.onnx"
            assert main(["export", str(weights), "--target", "onnx", "--output", str(plain)]) == 0
        networks[case.name] = OpenCVInput(module, size).eval()
        weights.unlink()
    faces = [drawn_face(identity) for identity in range(DRAWN)]
    if REAL_FACES.exists():
        faces += [decode_image(jpeg)[:, :, ::-1] for jpeg in list(dict.fromkeys(read_pairs(REAL_FACES).jpegs))[:4]]
    turned = [(0, 12.0, 1.7), (0, -25.0, 1.3), (1, 5.0, 2.1), (len(faces) - 1, -8.0, 1.9)]
    photos = [in_photo(faces[face], degrees=degrees, scale=scale) for face, degrees, scale in turned]
    np.save(folder / "faces.npy", np.stack(faces))
    np.save(folder / "photos.npy", np.stack([photo for photo, _ in photos]))
    np.save(folder / "rows.npy", np.stack([row for _, row in photos]))
    return Exports(folder, np.stack(faces), networks)


@pytest.fixture(scope="module")
def opencv(exports: Exports) -> Any:
    """By the first digit of the version: what it made of each case."""
    made: dict[str, dict[str, Any]] = {}

    def by(version: str) -> dict[str, Any]:
        if version not in made:
            python = sys.executable if version == "5." else str(OTHER_PYTHON)
            script = ROOT / "tests" / "support" / "opencv_side.py"
            models = [str(exports.folder / f"{case.name}.onnx") for case in CASES]
            ended = run([python, str(script), str(exports.folder), *models], cwd=exports.folder, deadline_seconds=240)
            assert ended.code == 0, ended.err
            full_version = ended.out.split()[-1]
            assert full_version.startswith(version)
            made[version] = {
                case.name: dict(np.load(exports.folder / f"{case.name}.onnx.{full_version}.npz")) for case in CASES
            }
        return made[version]

    return by


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest of a component, of the embedding's length."""
    assert found.shape == expected.shape
    return float((np.abs(found - expected).max(axis=1) / np.linalg.norm(expected, axis=1)).max())


def units(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = embeddings.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


@pytest.mark.parametrize("version", OPENCV)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_features_are_torchs_embeddings(case: Case, version: str, exports: Exports, opencv: Any) -> None:
    found = opencv(version)[case.name]
    expected = exports.expected(case, exports.faces)
    assert difference(found["features"], expected) <= LIMIT
    assert difference(found["batch"], expected) <= LIMIT, "several faces at once"
    lengths = np.linalg.norm(expected, axis=1)
    assert (np.abs(lengths - 1) > 1e-3).all(), "not normalised"
    cosines = units(expected) @ units(expected).T
    assert np.abs(units(found["features"]) @ units(found["features"]).T - cosines).max() <= LIMIT
    assert cosines[~np.eye(len(cosines), dtype=bool)].max() < 1 - 1e-4, "faces differ, or the test tells nothing"


@pytest.mark.parametrize("version", OPENCV)
@pytest.mark.parametrize("case", FULL, ids=lambda case: case.name)
def test_from_a_photo_to_a_decision(case: Case, version: str, exports: Exports, opencv: Any) -> None:
    """alignCrop, feature, match."""
    found = opencv(version)[case.name]
    aligned = found["aligned"]
    assert aligned.shape == (4, 112, 112, 3)
    inner = np.s_[:, 16:96, 16:96]
    shown = exports.faces[[0, 0, 1, len(exports.faces) - 1]]
    off = np.abs(aligned[inner].astype(float) - shown[inner]).mean(axis=(1, 2, 3))
    assert off.max() < 6.0, "the face is where it was, but for two interpolations"
    embeddings = exports.expected(case, aligned)
    assert difference(found["of_photos"], embeddings) <= LIMIT
    cosines = units(embeddings) @ units(embeddings).T
    assert np.abs(found["cosines"] - cosines).max() <= LIMIT
    different = ~np.eye(4, dtype=bool)
    distances = np.sqrt(2 - 2 * cosines.clip(max=1.0))
    assert np.abs(found["distances"] - distances)[different].max() <= LIMIT
    same_face, *others = found["cosines"][0, 1:]
    assert same_face > max(others), "two photos of one face are nearer than two faces"


@NEEDS_OTHER
def test_insightface_feeds_either_file_what_it_wants(exports: Exports) -> None:
    """The ONNX target normalised images, the OpenCV target raw ones: it finds out from names of nodes."""
    script = ROOT / "tests" / "support" / "insightface_side.py"
    models = [exports.folder / f"{case.name}{kind}.onnx" for case in FULL for kind in ("", ".plain")]
    command = [str(OTHER_PYTHON), str(script), str(exports.folder), *map(str, models)]
    ended = run(command, cwd=exports.folder)
    assert ended.code == 0, ended.err
    for case in FULL:
        raw, plain = (
            np.load(exports.folder / f"{case.name}{kind}.onnx.insightface.npz") for kind in ("", ".plain")
        )  # fmt: skip
        assert raw["taken"].tolist() == ["recognition", "0.0", "1.0"]
        assert plain["taken"].tolist() == ["recognition", "127.5", "127.5"]
        for found in (raw, plain):
            assert difference(found["features"], exports.expected(case, exports.faces)) <= LIMIT
        assert difference(raw["of_photos"], plain["of_photos"]) <= LIMIT
        cosines = units(plain["of_photos"]) @ units(plain["of_photos"]).T
        assert cosines[0, 1] > cosines[0, 2:].max()


def test_onnx_takes_normalised_images_in_onnxruntime(exports: Exports) -> None:
    import onnxruntime

    for case in FULL:
        path = str(exports.folder / f"{case.name}.plain.onnx")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        assert (taken.name, taken.shape, taken.type) == ("data", ["N", 3, 112, 112], "tensor(float)")
        assert (given.name, given.shape, given.type) == ("fc1", ["N", 512], "tensor(float)")
        images = normalised(as_tensor(exports.faces))
        expected = exports.expected(case, exports.faces)
        for count in (1, 3, len(images)):
            found = session.run(["fc1"], {"data": images[:count].numpy()})[0]
            assert difference(found, expected[:count]) <= LIMIT
