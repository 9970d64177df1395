"""What an export is made of: the network without its training, plain operators, resizing, thresholds, files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exportable import calibrated
from PIL import Image

from trainer.backbones import BACKBONE_NAMES, BackboneConfig, build_backbone
from trainer.config import config_from
from trainer.errors import ConfigError
from trainer.evaluation import verify
from trainer.export import ExportError
from trainer.export.metadata import arcface_torch_name, as_text, describe, own_commit
from trainer.export.opencv_input import OpenCVInput, bilinear_weights
from trainer.export.output import check_output, publish
from trainer.export.plain_operators import with_plain_operators
from trainer.export.self_check import TOLERANCE, compare
from trainer.export.source import Source, for_inference, source_of_state
from trainer.export.targets import make_target
from trainer.export.thresholds import calibrate, distance_of
from trainer.export.weights_file import describe_weights

pytestmark = pytest.mark.unit


def images(count: int, size: int) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "normalization", "size"), [("vit_t", "batch", 36), ("vit_t", "group", 36), ("iresnet18", "group", 32)]
)
def test_plain_operators_do_the_same_and_the_network_keeps_its_own(name: str, normalization: str, size: int) -> None:
    network = calibrated(name, normalization=normalization, image_size=size)
    modules = [type(module) for module in network.modules()]
    plain = with_plain_operators(network)
    with torch.no_grad():
        torch.testing.assert_close(plain(images(3, size)), network(images(3, size)), rtol=1e-4, atol=1e-5)
    assert [type(module) for module in network.modules()] == modules
    kinds = {type(module).__name__ for module in plain.modules()}
    assert not kinds & {"Attention", "GroupNorm"}
    assert kinds & {"PlainAttention", "PlainGroupNorm"}


@pytest.mark.parametrize("size", [32, 48, 111, 160])
def test_images_are_resized_in_the_graph_as_pillow_resizes_training_images(size: int) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (112, 112)).astype(np.float32)
    expected = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    weights = bilinear_weights(112, size)
    np.testing.assert_allclose(weights.T @ pixels @ weights, expected, atol=2e-3)

    inside = OpenCVInput(torch.nn.Identity(), size)
    given = torch.from_numpy(pixels).expand(2, 3, 112, 112)
    np.testing.assert_allclose(inside(given)[1, 2].numpy(), expected / 127.5 - 1, atol=2e-5)


def test_aligned_faces_of_full_size_are_only_normalised() -> None:
    inside = OpenCVInput(torch.nn.Identity(), 112)
    assert inside.resize is None
    given = torch.tensor([0.0, 127.5, 255.0]).expand(1, 3, 112, 3)
    assert torch.allclose(inside(given)[0, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))


@pytest.mark.parametrize("name", BACKBONE_NAMES)
@pytest.mark.parametrize(("normalization", "size", "dim"), [("batch", 112, 512), ("group", 144, 96)])
def test_a_state_dict_tells_its_network(name: str, normalization: str, size: int, dim: int) -> None:
    transformer = name.startswith("vit")
    patch_size = None if not transformer else 9 if size == 112 else 16
    config = BackboneConfig.model_validate(
        {"name": name, "embedding_dim": dim, "patch_size": patch_size, "normalization": normalization}
    )
    with torch.device("meta"):
        state = build_backbone(config, image_size=size).state_dict()
    assert describe_weights(state, Path("x.pt")) == (config, size)


MOBILE = {"layers.0.layers.0.weight": torch.zeros(1), "conv_sep.layers.0.weight": torch.zeros(1)}
NO_FEATURES = {"features.layers.3.bias": torch.zeros(0), "features.layers.0.layers.0.weight": torch.zeros(1, 1, 2, 2)}


@pytest.mark.parametrize(
    "state", [{"weight": torch.zeros(3)}, MOBILE, MOBILE | {"features.bias": torch.zeros(4)}, MOBILE | NO_FEATURES]
)
def test_weights_of_something_else(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"x\.pt: weights of no backbone that pfc has \(mobilefacenet, ") as caught:
        describe_weights(state, Path("x.pt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("normalization", ["batch", "sync_batch", "group"])
def test_networks_of_any_precision_are_exported_in_float32(precision: str, normalization: str) -> None:
    trained = BackboneConfig.model_validate(
        {
            "name": "vit_t", "embedding_dim": 24, "patch_size": 9, "precision": precision, "dropout": 0.5,
            "normalization": normalization, "drop_path": 0.3, "mask_ratio": 0.5, "activation_checkpointing": True,
        }
    )  # fmt: skip
    torch.manual_seed(3)
    state = build_backbone(trained, image_size=36).state_dict()
    source = source_of_state(state, Path("x.pt"))
    assert for_inference(trained) == source.backbone
    plain = build_backbone(source.backbone, image_size=36).eval()
    plain.load_state_dict(state)
    with torch.no_grad():
        found = source.network(images(2, 36))
        assert found.dtype == torch.float32
        assert torch.equal(found, plain(images(2, 36)))
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    of_halves = source_of_state(halves, Path("x.pt")).network
    assert {parameter.dtype for parameter in of_halves.parameters()} == {torch.float32}


def test_weights_that_are_not_finite() -> None:
    state = calibrated("mobilefacenet").state_dict()
    state["conv_sep.layers.0.weight"][0] = torch.nan
    message = r"conv_sep\.layers\.0\.weight is not finite: the run they come from has diverged"
    with pytest.raises(ConfigError, match=message):
        source_of_state(state, Path("x.pt"))


def test_thresholds_by_hand() -> None:
    same = [0.9, 0.8, 0.7, 0.45]
    different = [0.75, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, -0.1, -0.2, -0.3]
    scores = np.array(same + different)
    result = verify("pairs", scores, np.arange(14) < 4)
    found = calibrate(result, flip_test=True)
    (only,) = found.at_far  # one of ten different pairs is a tenth: 1e-2 cannot be measured
    assert only.far == "1e-1"
    assert only.cosine == pytest.approx(0.6, abs=1e-6), "0.75 of a different pair may pass, 0.5 may not, 0.7 should"
    assert only.tar == result.tar_at_far["1e-1"] == 0.75
    assert only.distance == pytest.approx((2 - 2 * 0.6) ** 0.5, abs=1e-6)
    assert (found.best, found.flip_test, found.number_of_pairs) == (result.threshold, True, 14)
    assert distance_of(1.0000001) == 0.0


def test_a_threshold_refuses_pairs_that_tie_with_the_first_one_refused() -> None:
    scores = np.array([0.5, 0.5, 0.2, *[0.5] * 3, *[0.1] * 7])
    (only,) = calibrate(verify("pairs", scores, np.arange(13) < 3), flip_test=False).at_far
    assert only.cosine > 0.5, "three different pairs have it, one may pass"
    assert only.cosine == pytest.approx(0.5)
    assert only.tar == 0.0


def test_embeddings_that_differ_are_refused() -> None:
    expected = np.array([[3.0, 4.0], [0.0, 10.0]], dtype=np.float32)
    assert compare("X 1", expected + np.float32(2e-5), expected).difference == pytest.approx(4e-6, rel=0.1)
    for found, wrong in (
        (expected + np.float32([[0, 0], [0, 1.2e-4]]), r"differ by 1\.2e-05 of their length, allowed are 1e-05"),
        (np.full_like(expected, np.nan), "differ by nan of their length"),
        (expected[:, :1], r"gives \[2, 1\] instead of \[2, 2\]"),
    ):
        with pytest.raises(ExportError, match=f"X 1 .*{wrong}.*; nothing is exported"):
            compare("X 1", found, expected)
    assert TOLERANCE == 1e-5


def test_what_a_file_says_of_itself_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    config = config_from(
        {
            "run": {"output": str(tmp_path / "secret" / "out")},
            "data": {"records": [str(tmp_path / "ms1m" / "train.rec"), str(tmp_path / "b.rec")]},
            "train": {"steps": 1},
            "evaluation": {"pairs": [str(tmp_path / "lfw.bin")]},
        },
        "test",
    )
    module = calibrated("mobilefacenet")
    source = Source(tmp_path / "run", module, for_inference(config.backbone), 32, config)
    described = describe(source, make_target("onnx", source), [], data_set=None, licence="CC0")
    assert described["data_set"] == "ms1m, b.rec"
    assert described["licence"] == "CC0"
    assert described["paper"].endswith("arXiv 2205.12010")
    assert described["config"]["evaluation"]["pairs"] == ["lfw.bin"]
    texts = as_text(described)
    assert all(isinstance(text, str) for text in texts.values())
    assert str(tmp_path) not in repr(texts)
    assert "secret" not in repr(texts)
    unknown = describe(source, make_target("opencv", source), [], data_set="VGGFace2", licence=None)
    assert unknown["data_set"] == "VGGFace2"
    assert unknown["licence"].startswith("not stated")
    assert "0 to 255" in unknown["input"]


@pytest.mark.parametrize(
    ("config", "size", "name"),
    [
        ({"name": "iresnet100"}, 112, "r100"),
        ({"name": "mobilefacenet", "embedding_dim": 128}, 112, "mbf"),
        ({"name": "vit_s", "patch_size": 9}, 112, "vit_s"),
        ({"name": "iresnet100"}, 96, None),
        ({"name": "iresnet100", "normalization": "group"}, 112, None),
        ({"name": "vit_s", "patch_size": 8}, 112, None),
    ],
)
def test_which_networks_arcface_torch_has(config: dict[str, object], size: int, name: str | None) -> None:
    source = Source(Path("x"), torch.nn.Identity(), BackboneConfig.model_validate(config), size)
    assert arcface_torch_name(source) == name


def test_the_commit_is_the_checkouts() -> None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        assert own_commit() is None
        return
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert own_commit() == (asked.stdout.strip() or None)


def test_leftovers_of_killed_exports_go_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(timeout=60)
    dead = tmp_path / f".x.onnx.{ended.pid}.0123abcd.tmp"
    alive, other = tmp_path / f".x.onnx.{os.getpid()}.0123abcd.tmp", tmp_path / f".y.onnx.{ended.pid}.0123abcd.tmp"
    for path in (dead, alive, other):
        path.touch()
    publish([(tmp_path / "x.json", b"{}"), (tmp_path / "x.onnx", b"graph")])
    assert {path.name for path in tmp_path.iterdir()} == {"x.json", "x.onnx", alive.name, other.name}
    assert (tmp_path / "x.onnx").read_bytes() == b"graph"


def test_of_several_files_none_gets_its_name_when_one_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish([(tmp_path / "x.json", b"{}"), (tmp_path / "nowhere" / "x.pt", b"weights")])
    assert list(tmp_path.iterdir()) == []


def test_looking_whether_a_file_can_be_written_writes_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "x.onnx", source=tmp_path, overwrite=False)
    assert list(tmp_path.iterdir()) == []
