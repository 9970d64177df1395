"""The exported bytes, loaded again by the programs they are for, against the network itself.

Letters: M images, S image side, D embedding_dim.

The difference of two embeddings a and b of the same image is  max_j |a_j - b_j| / |b|:  rounding of float32, which
grows with the depth of a network. Measured on all backbones: up to 2e-6 in ONNX Runtime and OpenCV 5.0, up to 5e-6 in
OpenCV 4.14, whose convolutions are Winograd's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainer.export.errors import ExportError
from trainer.export.opencv_input import ALIGNED_SIZE
from trainer.export.sample_images import SampleImages
from trainer.export.targets import INPUT, OUTPUT, Target
from trainer.export.thresholds import embed

TOLERANCE = 1e-5

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """program: name and version. difference: the largest. None: the program is not installed."""

    program: str
    difference: float | None


def check_onnx(content: bytes, target: Target, samples: SampleImages) -> list[Check]:
    """In ONNX Runtime, and for target opencv in cv2.FaceRecognizerSF, as far as they are installed.

    Raises ExportError where one cannot load it or the embeddings differ.
    """
    expected = expected_embeddings(target, samples)
    checks = [_in_onnxruntime(content, target, samples, expected)]
    if target.name == "opencv":
        checks.append(_in_opencv(content, samples, expected))
    return checks


def expected_embeddings(target: Target, samples: SampleImages) -> Embeddings:
    """[M, D] by the network itself. Raises ExportError where they are not finite."""
    expected: Embeddings = embed(target.module, target.to_input(samples.images)).numpy()
    if not np.isfinite(expected).all():
        raise ExportError(
            f"embeddings of {samples.origin} are not finite: activations overflow float32; nothing is exported, "
            "use another checkpoint"
        )
    return expected


def compare(program: str, found: Embeddings, expected: Embeddings) -> Check:
    """Raises ExportError where shapes or numbers differ."""
    if found.shape != expected.shape:
        raise ExportError(f"{program} gives {list(found.shape)} instead of {list(expected.shape)}; nothing is exported")
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
    differences = np.abs(found.astype(np.float64) - expected).max(axis=1)
    largest = float(np.max(differences / np.maximum(lengths, np.finfo(np.float64).tiny)))
    if not largest <= TOLERANCE:  # also NaN
        raise ExportError(
            f"{program} gives other embeddings than torch: they differ by {largest:.1e} of their length, allowed are "
            f"{TOLERANCE:.0e}; nothing is exported"
        )
    return Check(program, largest)


def _in_onnxruntime(content: bytes, target: Target, samples: SampleImages, expected: Embeddings) -> Check:
    if find_spec("onnxruntime") is None:
        return Check("ONNX Runtime", None)
    import onnxruntime

    program = f"ONNX Runtime {onnxruntime.__version__}"
    images: Tensor = target.to_input(samples.images)

    def run() -> Embeddings:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        # The first image alone as well: N is open.
        batches = (images[:1], images[1:])
        return np.concatenate([session.run([OUTPUT], {INPUT: batch.numpy()})[0] for batch in batches])

    return compare(program, _asked(program, run), expected)


def _in_opencv(content: bytes, samples: SampleImages, expected: Embeddings) -> Check:
    if find_spec("cv2") is None:
        return Check("OpenCV", None)
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # 5.0 warns at every loading of its targets
    assert samples.images.shape[2:] == (ALIGNED_SIZE, ALIGNED_SIZE)
    program = f"OpenCV {cv2.__version__}"
    pictures = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1]) for image in samples.images]

    def run() -> Embeddings:
        buffer, nothing = np.frombuffer(content, np.uint8), np.zeros(0, np.uint8)
        recognizer: Any = cv2.FaceRecognizerSF.create("onnx", buffer, nothing)
        return np.concatenate([recognizer.feature(picture).copy() for picture in pictures])

    return compare(program, _asked(program, run), expected)


def _asked(program: str, run: Callable[[], Embeddings]) -> Embeddings:
    try:
        return run()
    except Exception as error:  # each library has its own kinds
        reason = " ".join(str(error).split())
        raise ExportError(f"{program} cannot use the exported graph; nothing is exported: {reason[:500]}") from error
