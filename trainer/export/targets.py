"""What can be exported to: which files, what goes in, what comes out.

Letters: B batch, S side of the network's images, D embedding_dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from trainer.errors import ConfigError
from trainer.export.opencv_input import ALIGNED_SIZE, OpenCVInput
from trainer.export.source import Source

TargetName = Literal["onnx", "opencv", "torch"]
TARGETS: tuple[TargetName, ...] = ("onnx", "opencv", "torch")
SUFFIXES = {"onnx": (".onnx",), "opencv": (".onnx",), "torch": (".pt", ".pth", ".pt2")}

# As in OpenCV's own SFace model, so that programs which name them take this one, too.
INPUT, OUTPUT = "data", "fc1"


@dataclass(frozen=True)
class Target:
    """module: [B, 3, size, size] float32 -> [B, D]; what the file must do. to_input: uint8 RGB images of that size to
    what goes in. described: the same in words.
    """

    name: TargetName
    module: nn.Module
    size: int
    to_input: Callable[[Tensor], Tensor]
    described: str


def make_target(name: TargetName, source: Source) -> Target:
    """``source`` as ``name`` wants it."""
    if name == "opencv":
        module = OpenCVInput(source.network, source.image_size).eval()
        words = f"float32 [N, 3, {ALIGNED_SIZE}, {ALIGNED_SIZE}], RGB, 0 to 255, as FaceRecognizerSF feeds it"
        return Target(name, module, ALIGNED_SIZE, _as_it_is, words)
    size = source.image_size
    words = f"float32 [N, 3, {size}, {size}], RGB, (value - 127.5) / 127.5, of an aligned face"
    return Target(name, source.network, size, _normalised, words)


def check_suffix(name: TargetName, path: Path) -> None:
    """Raise ConfigError for a file name by which programs would not know what it is."""
    if path.suffix not in SUFFIXES[name]:
        kinds = {
            "onnx": "NAME.onnx",
            "opencv": "NAME.onnx: OpenCV chooses its reader by the name",
            "torch": "NAME.pt (state dict in InsightFace's names) or NAME.pt2 (torch.export program)",
        }
        raise ConfigError(f"--output {path}: for --target {name} name it {kinds[name]}")


def _as_it_is(images: Tensor) -> Tensor:
    return images.float()


def _normalised(images: Tensor) -> Tensor:
    return images.float().sub_(127.5).div_(127.5)
