"""pfc export as a user types it, on a trained run; and all that keeps it from writing a file."""

import dataclasses
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import pfc, run_warm, running
from damages import DAMAGES
from exportable import calibrated, normalised, save_weights
from small_disk import PRIVATE, missing
from small_faces import make_small_faces, write_run

from data_pipeline.pairs import read_pairs
from trainer.backbones import BackboneConfig, build_backbone, load_pretrained
from trainer.checkpoint import load_backbone, read_description
from trainer.cli import main
from trainer.evaluation import load_results
from trainer.evaluation.embed import decode_images
from trainer.export import self_check

pytestmark = pytest.mark.integration

STEPS = 6
MODEL = {"precision": '"bfloat16"', "normalization": '"sync_batch"'}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in bfloat16 with checkpoints of steps 5 and 6, and its data beside it."""
    folder = tmp_path_factory.mktemp("trained")
    faces = make_small_faces(folder / "faces")
    toml = write_run(folder / "run.toml", output=folder / "out", faces=faces, steps=STEPS)
    settings = [part for key, value in MODEL.items() for part in ("--set", f"backbone.{key}={value}")]
    ended = run_warm(pfc("train", toml, *settings, "--set", "data.decoder=cpu"), cwd=folder)
    assert ended.code == 0, ended.err
    return folder / "out"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "backbone.pt", calibrated("mobilefacenet"))


def export(model: Path, target: str, output: Path, *options: str) -> int:
    return main(["export", str(model), "--target", target, "--output", str(output), *options])


def float32_network(trained: Path, which: str | None = None) -> torch.nn.Module:
    loaded = load_backbone(trained, torch.device("cpu"), which=which)
    config = BackboneConfig(name="mobilefacenet", embedding_dim=16)
    network = build_backbone(config, image_size=32)
    network.load_state_dict(loaded.module.state_dict())
    return network.eval()


def pixels(trained: Path, count: int) -> torch.Tensor:
    pairs = read_pairs(trained.parent / "faces" / "verification.bin")
    return decode_images(pairs.jpegs[:count], 32, name="pairs").float()


def test_onnx(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "model.onnx"
    assert export(trained, "onnx", output, "--licence", "for research alone") == 0
    told = capsys.readouterr()
    assert told.err == f"exporting {trained}/checkpoints/step_{STEPS:08d}\n"
    first, *rest = told.out.splitlines()
    assert first.startswith(f"{output}  mobilefacenet, step {STEPS}, ")
    assert rest[0] == "input   data: float32 [N, 3, 32, 32], RGB, (value - 127.5) / 127.5, of an aligned face"
    assert (
        f"checked in ONNX Runtime {onnxruntime.__version__} on 4 random and 8 real images (verification.bin)" in rest[2]
    )
    assert "flip test; the file gives one view" in rest[3]
    assert list(tmp_path.iterdir()) == [output]

    images = normalised(pixels(trained, 5))
    with torch.inference_mode():
        expected = float32_network(trained)(images).numpy()
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        found = session.run(["fc1"], {"data": images[:count].numpy()})[0]
        assert found.dtype == np.float32
        assert np.abs(found - expected[:count]).max() <= 1e-5 * np.linalg.norm(expected, axis=1).min()

    said = session.get_modelmeta().custom_metadata_map
    description = read_description(trained / "checkpoints" / f"step_{STEPS:08d}")
    assert {"backbone", "commit", "config", "data_set", "licence", "producer", "thresholds"} <= {*said, "commit"}
    assert (said["step"], said["identities"], said["data_set"]) == (str(STEPS), "9", "faces")
    assert said["licence"] == "for research alone"
    assert "2205.12010" in said["paper"]
    config = json.loads(said["config"])
    assert config["backbone"] == description.config["backbone"]
    assert config["run"]["output"] == "out"
    (stored,) = [result for result in load_results(trained / "evaluations") if result.step == STEPS]
    (calibration,) = json.loads(said["thresholds"])
    assert (calibration["pairs"], calibration["best"]) == ("verification", stored.threshold)
    assert calibration["flip_test"]


def test_nothing_of_this_machine_is_in_the_graph(trained: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "one.onnx", tmp_path / "other.onnx"]
    for output in outputs:
        assert export(trained, "onnx", output) == 0
    content = outputs[0].read_bytes()
    assert content == outputs[1].read_bytes(), "the same of the same"
    graph = onnx.load_from_string(content)
    told = onnx.load_from_string(content)
    del told.graph.initializer[:]  # among weights there may be any three bytes
    for secret in (str(trained.parent), str(Path(__file__).parents[2]), str(Path.home()), ".py"):
        assert secret.encode() not in told.SerializeToString()
    onnx.checker.check_model(graph, full_check=True)
    assert (graph.ir_version, [(each.domain, each.version) for each in graph.opset_import]) == (8, [("", 18)])
    assert not {node.op_type for node in graph.graph.node} & {"Shape", "Concat", "Constant"}


def test_thresholds_for_one_view(
    trained: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a network whose cosines are spread: after six steps they are all alike."""
    pairs = trained.parent / "faces" / "verification.bin"
    output = tmp_path / "model.pt"
    assert export(weights, "torch", output, "--pairs", str(pairs)) == 0
    assert "calibrating on verification: 40 pairs" in capsys.readouterr().err
    (calibration,) = json.loads((tmp_path / "model.pt.json").read_text())["thresholds"]
    assert not calibration["flip_test"]
    with torch.inference_mode():
        embeddings = calibrated("mobilefacenet")(normalised(pixels(trained, 80))).double()
    units = torch.nn.functional.normalize(embeddings).numpy()
    scores = np.sum(units[::2] * units[1::2], axis=1)
    same = read_pairs(pairs).same
    (at_tenth,) = calibration["at_far"]  # 20 different pairs cannot tell of 1e-2
    accepted = scores >= at_tenth["cosine"] - 1e-6
    assert at_tenth["tar"] == np.mean(accepted[same])
    assert np.mean(accepted[~same]) <= 0.1
    lower = np.max(scores[scores < at_tenth["cosine"] - 1e-6])
    assert np.mean(scores[~same] >= lower) > 0.1, "the lowest threshold of that FAR"


def test_a_state_dict_goes_out_and_in_again(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "model.pt"
    assert export(trained, "torch", output, "--checkpoint", "5") == 0
    assert "arcface_torch has no such network (112x112," in capsys.readouterr().out
    state = torch.load(output, weights_only=True)
    network = float32_network(trained, "5")
    expected = network.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    load_pretrained(build_backbone(BackboneConfig(embedding_dim=16), image_size=32), output)
    assert json.loads((tmp_path / "model.pt.json").read_text())["step"] == 5

    again = tmp_path / "again.onnx"
    assert export(output, "onnx", again) == 0
    assert "mobilefacenet, state dict" in capsys.readouterr().out
    images = normalised(pixels(trained, 3))
    found = onnxruntime.InferenceSession(str(again)).run(None, {"data": images.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(found, network(images).numpy(), rtol=0, atol=1e-5 * np.linalg.norm(found[0]))


def test_published_sizes_load_into_arcface_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = save_weights(tmp_path / "r18.pth", calibrated("iresnet18", embedding_dim=256, image_size=112))
    assert export(weights, "torch", tmp_path / "out.pth") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "loads into InsightFace's arcface_torch: get_model('r18', num_features=256)"


def test_a_program_that_runs_without_pfc(trained: Path, tmp_path: Path) -> None:
    assert export(trained, "torch", tmp_path / "model.pt2") == 0
    images = normalised(pixels(trained, 3))
    np.save(tmp_path / "images.npy", images.numpy())
    script = """if True:
        import sys
        for name in ("trainer", "partial_fc", "data_pipeline", "deploy"):
            sys.modules[name] = None  # importing it fails
        import numpy as np, torch
        extra = {"pfc.json": ""}
        network = torch.export.load("model.pt2", extra_files=extra).module()
        images = torch.from_numpy(np.load("images.npy"))
        assert network(images[:1]).shape == (1, 16)
        np.save("found.npy", network(images).detach().numpy())
        print(extra["pfc.json"])
    """
    ended = run_warm([sys.executable, "-c", script], cwd=tmp_path)
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    sidecar = json.loads((tmp_path / "model.pt2.json").read_text())
    assert sidecar.pop("sha256")
    assert said == sidecar
    with torch.inference_mode():
        expected = float32_network(trained)(images).numpy()
    found = np.load(tmp_path / "found.npy")
    assert np.abs(found - expected).max() <= 1e-5 * np.linalg.norm(expected, axis=1).min()


def listing(*folders: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for folder in folders for path in folder.rglob("*"))


def refused(arguments: list[str], folders: list[Path], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line that the command says; nothing is written anywhere in ``folders``."""
    before = listing(*folders)
    assert main(["export", *arguments]) == code
    told = capsys.readouterr()
    assert told.out == ""
    lines = [line for line in told.err.splitlines() if not line.startswith(("exporting ", "calibrating "))]
    (line,) = lines
    assert line.startswith("pfc: error: ")
    assert listing(*folders) == before
    return line


OUTPUTS = {
    "a folder that is not there": ("{here}/nowhere/m.onnx", "no such folder {here}/nowhere; make it first"),
    "a folder": ("{here}/folder.onnx", "is there, and is no file"),
    "a place that cannot be written": ("/proc/m.onnx", "cannot be written ("),
    "a file that is there": ("{here}/there.onnx", "is there already; --overwrite replaces it"),
    "another suffix": ("{here}/m.pb", "for --target onnx name it NAME.onnx"),
    "a file as folder": ("{here}/there.onnx/m.onnx", "no such folder"),
}


@pytest.mark.parametrize("case", list(OUTPUTS))
def test_outputs_that_cannot_be(case: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "there.onnx").write_text("mine")
    output, message = (text.format(here=tmp_path) for text in OUTPUTS[case])
    line = refused([str(weights), "--target", "onnx", "--output", str(output)], [tmp_path, weights.parent], capsys)
    assert f"--output {output}: " in line
    assert message in line


def test_outputs_of_torch_that_cannot_be(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path, weights.parent]
    line = refused([str(weights), "--target", "torch", "--output", str(tmp_path / "m.onnx")], folders, capsys)
    assert "NAME.pt (state dict in InsightFace's names) or NAME.pt2 (torch.export program)" in line
    itself = ["--target", "torch", "--output", str(weights), "--overwrite"]
    assert "is the model that is exported" in refused([str(weights), *itself], folders, capsys)
    (tmp_path / "m.pt.json").write_text("mine")
    line = refused([str(weights), "--target", "torch", "--output", str(tmp_path / "m.pt")], folders, capsys)
    assert "m.pt.json: is there already" in line


def test_overwrite(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.pt"
    for path in (output, tmp_path / "m.pt.json"):
        path.write_text("old")
    assert export(weights, "torch", output, "--overwrite") == 0
    assert torch.load(output, weights_only=True)
    assert {path.name for path in tmp_path.iterdir()} == {"m.pt", "m.pt.json"}


def no_model(path: Path) -> str:
    return f"{path}: no such run folder, checkpoint folder or state-dict file"


def no_checkpoint(path: Path) -> str:
    path.mkdir()
    (path / "run.toml").write_text("")
    return "holds no complete checkpoint; train first"


def torn(path: Path) -> str:
    DAMAGES["torn in the middle"](path / "checkpoints" / f"step_{STEPS:08d}" / "rank_0000.bin")
    return "use another checkpoint"


def head_alone(path: Path) -> str:
    folder = path / "checkpoints" / f"step_{STEPS:08d}"
    description = read_description(folder)
    shared = {name: value for name, value in description.shared.items() if name != "backbone"}
    dataclasses.replace(description, shared=shared).write(folder)
    return "holds no backbone"


def no_weights(path: Path) -> str:
    path.write_bytes(b"\x08\x08onnx")
    return "not a file of plain tensors"


def torn_weights(path: Path) -> str:
    save_weights(path, calibrated("mobilefacenet"))
    path.write_bytes(path.read_bytes()[:100_000])
    return "not a file of plain tensors"


def other_weights(path: Path) -> str:
    torch.save({"weight": torch.zeros(3)}, path)
    return "weights of no backbone that pfc has"


MODELS: list[Any] = [no_model, no_checkpoint, torn, head_alone, no_weights, torn_weights, other_weights]


@pytest.mark.parametrize("spoil", MODELS, ids=lambda spoil: spoil.__name__)
def test_models_that_cannot_be(
    spoil: Any, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    model = tmp_path / "model"
    if spoil in (torn, head_alone):
        shutil.copytree(trained, model, symlinks=True)
    message = spoil(model)
    line = refused([str(model), "--target", "torch", "--output", str(tmp_path / "m.pt")], [tmp_path], capsys)
    assert message in line
    assert str(model) in line


def test_options_that_cannot_be(
    trained: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "m.onnx")]
    with pytest.raises(SystemExit) as caught:
        main(["export", str(weights), "--target", "tflite", *output])
    assert caught.value.code == 2
    assert "invalid choice: 'tflite'" in capsys.readouterr().err
    odd = tmp_path / "odd.bin"
    pairs = trained.parent / "faces" / "verification.bin"
    odd.write_bytes(pairs.read_bytes()[:-7])
    (tmp_path / "other").mkdir()
    shutil.copy(pairs, tmp_path / "other" / "verification.bin")
    onnx_target = ["--target", "onnx", *output]
    alike = ["--pairs", str(pairs), "--pairs", f"{tmp_path}/other/verification.bin"]
    for arguments, message in (
        ([str(weights), *onnx_target, "--checkpoint", "best"], "is a file, not a run folder"),
        ([str(trained), *onnx_target, "--checkpoint", "7"], "no checkpoint '7'"),
        ([str(trained), *onnx_target, "--pairs", str(tmp_path / "no.bin")], "no such verification set"),
        ([str(trained), *onnx_target, "--pairs", str(odd)], f"{odd}: "),
        ([str(trained), *onnx_target, *alike], "two files"),
        ([str(trained), *onnx_target, "--licence", " "], "--licence: is empty"),
    ):  # fmt: skip
        assert message in refused(arguments, [tmp_path], capsys)


def test_embeddings_that_overflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = calibrated("mobilefacenet")
    with torch.no_grad():
        module.conv_sep.layers[0].weight.mul_(1e38)
    weights = save_weights(tmp_path / "weights.pt", module)
    line = refused([str(weights), "--target", "torch", "--output", str(tmp_path / "m.pt")], [tmp_path], capsys, code=1)
    assert "are not finite: activations overflow float32; nothing is exported" in line


def test_a_file_that_differs_is_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(self_check, "TOLERANCE", 1e-12)  # which rounding exceeds
    line = refused([str(weights), "--target", "onnx", "--output", str(tmp_path / "m.onnx")], [tmp_path], capsys, code=1)
    assert "ONNX Runtime" in line
    assert "gives other embeddings than torch" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killed_in_the_middle(number: signal.Signals, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    command = pfc("export", weights, "--target", "onnx", "--output", output / "m.onnx")
    with running(command, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("exporting ")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert list(output.iterdir()) == []
    assert process.returncode == (-number if number == signal.SIGKILL else 1)
    if number != signal.SIGKILL:
        assert err.splitlines()[-1] == "pfc: error: interrupted; nothing half-done is left"
        assert "Traceback" not in err


@pytest.mark.skipif(missing() != "", reason=missing())
def test_a_full_disk(weights: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = " ".join(pfc("export", weights, "--target", "torch", "--output", disk / "m.pt"))
    script = f"mount -t tmpfs -o size=1M tmpfs {disk} && {command}; echo code $?; ls -A {disk}"
    ended = run_warm([*PRIVATE, "sh", "-c", script], cwd=tmp_path)
    assert ended.out == "code 1\n", "and nothing on the disk"
    (line,) = ended.error_lines
    assert line == f"pfc: error: {disk}/m.pt: No space left on device; make room and run the same command again"
