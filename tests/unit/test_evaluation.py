"""From JPEG bytes to stored results: embedding with flip test, parts of many ranks, files, the command."""

import argparse
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from data_pipeline.errors import DataError
from data_pipeline.pairs import Pairs, write_pairs
from trainer.backbones import BackboneConfig, build_backbone
from trainer.commands import eval as command
from trainer.errors import ConfigError
from trainer.evaluation import EvaluationConfig, Evaluator, load_results, save_result, verify
from trainer.evaluation.embed import decode_images, embed_images
from trainer.evaluation.image_sources import Decoding
from trainer.evaluation.kept_images import keep_images
from trainer.evaluation.untrained import calibrate_batch_norm

pytestmark = pytest.mark.unit

SIDE = 32
PILLOW = Decoding(image_size=SIDE, device=torch.device("cpu"), decoder="cpu")


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def make_pairs(count=11, side=SIDE, seed=0):
    """``count`` pairs; same pairs are two JPEGs of one noisy colour field, different pairs of two."""
    generator = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0

    def photo(colour):
        noise = generator.normal(0, 8, (side, side, 3))
        ramp = np.linspace(0, 1, side)[:, None, None] * colour[3:]
        return jpeg((colour[:3] + ramp + noise).clip(0, 255).astype(np.uint8))

    jpegs = []
    for is_same in same:
        first = generator.uniform(0, 200, 6)
        jpegs += [photo(first), photo(first if is_same else generator.uniform(0, 200, 6))]
    return Pairs(jpegs, same)


class Projection(nn.Module):
    """A small network with batch norm and dropout: it shows whether evaluation mode was on."""

    def __init__(self, dim=7):
        super().__init__()
        torch.manual_seed(5)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(3 * SIDE * SIDE, dim)

    def forward(self, x):
        return self.linear(self.drop(self.norm(x)).flatten(1))


def test_embedding_is_the_normalised_sum_over_the_flip():
    module = Projection()
    pairs = make_pairs(3)
    images = decode_images(pairs.jpegs, SIDE, name="p")
    assert images.dtype == torch.uint8
    found = embed_images(module, images, batch_size=4, device=torch.device("cpu"))
    module.eval()
    for image, embedding in zip(images, found, strict=True):
        x = image[None].float() / 127.5 - 1
        expected = module(x) + module(torch.flip(x, dims=[-1]))
        torch.testing.assert_close(embedding, (expected / expected.norm())[0].detach())


def test_pixels_are_rgb_in_place_and_resized():
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[:, :24, 0] = 250
    (image,) = decode_images([jpeg(pixels)], SIDE, name="p")
    assert image.shape == (3, SIDE, SIDE)
    assert image[0, :, :12].float().mean() > 230
    assert image[0, :, 20:].float().mean() < 20
    assert image[1:].float().mean() < 20


@pytest.mark.parametrize("decoder", ["cpu", "dali"])
@pytest.mark.parametrize("side", [SIDE, 24])
def test_both_decoders_of_training_keep_the_same_pixels(decoder, side):
    jpegs = make_pairs(40).jpegs
    how = replace(PILLOW, decoder=decoder, image_size=side, threads=2)
    kept, expected = keep_images(jpegs, how, name="p"), decode_images(jpegs, side, name="p")
    off = (kept.int() - expected.int()).abs().max()
    assert off <= (side != SIDE), "training resizes without Pillow: a grey value apart at most"
    assert torch.equal(kept, keep_images(jpegs, replace(how, decoder="cpu"), name="p"))
    jpegs[7], jpegs[70] = b"one", b"other"
    with pytest.raises(DataError, match=r"image 107 \(pair 53\)"):
        keep_images(jpegs, how, name="p", first=100)
    assert keep_images([], how, name="p").shape == (0, 3, side, side)


def test_modes_and_statistics_of_the_module_are_left_as_they_were():
    module = Projection().train()
    module.norm.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    images = decode_images(make_pairs(3).jpegs, SIDE, name="p")
    embeddings = embed_images(module, images, batch_size=4, device=torch.device("cpu"))
    assert (module.training, module.norm.training, module.drop.training) == (True, False, True)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert not embeddings.is_inference()
    assert not embeddings.requires_grad


class Fixed(nn.Module):
    """The same embedding for every image."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full((len(x), 4), self.value)


def test_zero_embeddings_stay_zero_and_huge_ones_do_not_overflow():
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    zero = embed_images(Fixed(0.0), images, batch_size=2, device=torch.device("cpu"))
    huge = embed_images(Fixed(1e30), images, batch_size=2, device=torch.device("cpu"))
    assert torch.equal(zero, torch.zeros(3, 4))
    torch.testing.assert_close(huge, torch.full((3, 4), 0.5))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("batch_size", [3, 5, 64])
def test_result_does_not_depend_on_the_number_of_ranks(world_size, batch_size):
    pairs, module = make_pairs(11), Projection()
    whole = Evaluator("p", pairs, PILLOW, batch_size).evaluate(module)
    evaluators = [Evaluator("p", pairs, PILLOW, batch_size) for _ in range(world_size)]
    parts = [evaluator.embed_part(module, rank, world_size) for rank, evaluator in enumerate(evaluators)]
    assert all(part.shape[1] == 7 for part in parts)
    together = evaluators[0].result(torch.cat(parts))
    np.testing.assert_array_equal(together.scores, whole.scores)
    assert together.accuracy_mean == whole.accuracy_mean
    covered = [number for rank in range(world_size) for number in evaluators[0].part(rank, world_size)]
    assert covered == list(range(22))


def test_images_are_decoded_once(monkeypatch):
    calls = []
    original = keep_images
    monkeypatch.setattr(
        "trainer.evaluation.evaluator.keep_images",
        lambda *args, **options: (calls.append(1), original(*args, **options))[1],
    )
    evaluator = Evaluator("p", make_pairs(5), PILLOW)
    evaluator.prepare()
    first, second = evaluator.evaluate(Projection()), evaluator.evaluate(Projection())
    assert len(calls) == 1
    np.testing.assert_array_equal(first.scores, second.scores)


def test_an_image_that_is_none_names_its_pair():
    pairs = make_pairs(5)
    pairs.jpegs[7] = b"\xff\xd8 nothing more"
    with pytest.raises(DataError, match=r"pairs p: image 7 \(pair 3\) cannot be decoded") as caught:
        Evaluator("p", pairs, PILLOW, batch_size=2).embed_part(Projection(), 1, 2)
    assert "\n" not in str(caught.value)


def test_wrong_number_of_embeddings_and_diverged_weights():
    evaluator = Evaluator("p", make_pairs(5), PILLOW)
    with pytest.raises(ConfigError, match="9 embeddings for 5 pairs"):
        evaluator.result(torch.zeros(9, 4))
    with pytest.raises(ConfigError, match="score of 5 of 5 pairs"):
        evaluator.evaluate(Fixed(float("nan")))
    with pytest.raises(ConfigError, match="batch size 0"):
        Evaluator("p", make_pairs(5), PILLOW, 0)


def a_result(name="set", pairs=23, seed=0):
    generator = np.random.default_rng(seed)
    same = np.arange(pairs) % 3 == 0
    return verify(name, generator.normal(0.4 * same, 0.3), same)


def test_results_come_back_as_they_were_sorted_by_step(tmp_path):
    for step, name in ((1000, "b"), (20, "a"), (1000, "a")):
        save_result(tmp_path, step, a_result(name, seed=step))
    save_result(tmp_path, 20, a_result("a", seed=99))  # replaces
    loaded = load_results(tmp_path)
    assert [(result.step, result.name) for result in loaded] == [(20, "a"), (1000, "a"), (1000, "b")]
    expected = a_result("a", seed=99)
    for field in ("pairs", "accuracy_mean", "accuracy_std", "threshold", "auc", "equal_error_rate", "tar_at_far"):
        assert getattr(loaded[0], field) == getattr(expected, field)
    for field in ("roc_far", "roc_tar", "scores", "same"):
        np.testing.assert_array_equal(getattr(loaded[0], field), getattr(expected, field))
    content = json.loads((tmp_path / "step_00000020" / "a.json").read_text())
    assert set(content) == {
        "step", "name", "pairs", "accuracy_mean", "accuracy_std", "threshold", "auc", "equal_error_rate",
        "tar_at_far", "roc",
    }  # fmt: skip
    assert set(content["roc"]) == {"far", "tar"}
    assert content["tar_at_far"]["1e-4"] is None
    assert sorted(path.name for path in (tmp_path / "step_00000020").iterdir()) == ["a.json", "a.npz"]


def test_an_absent_folder_holds_no_results(tmp_path):
    assert load_results(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/x", ".hidden"])
def test_names_that_are_no_file_names(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be a file name"):
        save_result(tmp_path / "out", 1, a_result(name))
    assert not (tmp_path / "out").exists()


def spoil(folder, kind):
    numbers, arrays = folder / "set.json", folder / "set.npz"
    content = json.loads(numbers.read_text())
    stored = dict(np.load(arrays))
    if kind == "json cut short":
        numbers.write_text(numbers.read_text()[:50])
    elif kind == "key missing":
        del content["auc"]
        numbers.write_text(json.dumps(content))
    elif kind == "another length":
        numbers.write_text(json.dumps(content | {"pairs": 24}))
    elif kind == "enormous length":
        numbers.write_text(json.dumps(content | {"pairs": 10**15}))
    elif kind == "npz missing":
        arrays.unlink()
    elif kind == "npz cut short":
        arrays.write_bytes(arrays.read_bytes()[:-100])
    elif kind == "npz is no archive":
        arrays.write_bytes(b"scores")
    elif kind == "array missing":
        np.savez(arrays, scores=stored["scores"])
    elif kind == "compressed":
        np.savez_compressed(arrays, **stored)
    elif kind == "pickled":
        np.savez(arrays, scores=np.array([object()] * 23), same=stored["same"])
    elif kind == "another type":
        np.savez(arrays, scores=stored["scores"].view(np.int32), same=stored["same"])


@pytest.mark.parametrize(
    "kind",
    ["json cut short", "key missing", "another length", "enormous length", "npz missing", "npz cut short",
     "npz is no archive", "array missing", "compressed", "pickled", "another type"],
)  # fmt: skip
def test_broken_results_give_one_line(tmp_path, kind):
    save_result(tmp_path, 5, a_result())
    spoil(tmp_path / "step_00000005", kind)
    with pytest.raises(ConfigError) as caught:
        load_results(tmp_path)
    assert "set.json" in str(caught.value)
    assert "delete it and evaluate again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_calibration_brings_activations_in_range_and_touches_no_weight():
    torch.manual_seed(0)
    module = build_backbone(BackboneConfig(name="iresnet18", embedding_dim=8), image_size=SIDE)
    weights = [parameter.clone() for parameter in module.parameters()]
    images = decode_images(make_pairs(5).jpegs, SIDE, name="p")
    x = images.float() / 127.5 - 1
    with torch.no_grad():
        before = module.eval()(x).abs().max()
        calibrate_batch_norm(module.train(), images, batch_size=3, device=torch.device("cpu"))
        assert module.training
        after = module.eval()(x).abs().max()
    assert before > 1e4
    assert after < 100
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))
    assert {layer.momentum for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("fields", [{"every_steps": -1}, {"batch_size": 0}, {"every": 5}])
def test_configuration_is_checked(fields):
    assert EvaluationConfig().every_steps == 0
    with pytest.raises(ValidationError):
        EvaluationConfig(**fields)


def run_command(*arguments):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["eval", *map(str, arguments)])
    return int(parsed.handler(parsed))


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    module = build_backbone(BackboneConfig(embedding_dim=16), image_size=SIDE)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    for name, count in (("first", 9), ("a_longer_name", 30)):
        pairs = make_pairs(count, side=40)
        write_pairs(tmp_path / f"{name}.bin", pairs.jpegs, pairs.same)
    return tmp_path


OPTIONS = ("--backbone", "mobilefacenet", "--embedding-dim", 16, "--image-size", SIDE, "--device", "cpu")


def test_command_prints_an_aligned_table_and_stores(model, capsys):
    pairs = ("--pairs", model / "first.bin", "--pairs", model / "a_longer_name.bin")
    assert run_command(model / "model.pt", *OPTIONS, *pairs, "--output", model / "out") == 0
    heading, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == ["first", "a_longer_name"]
    assert heading.endswith("TAR % @ FAR 1e-1")
    assert rows[0].endswith("-")  # four different pairs measure no FAR of 0.1
    column = heading.index("accuracy %") + len("accuracy %")
    assert all(row[column] == " " for row in rows)
    assert [result.name for result in load_results(model / "out")] == ["a_longer_name", "first"]


def test_command_prints_json_and_an_untrained_floor_by_seed(model, capsys):
    arguments = (model / "model.pt", *OPTIONS, "--pairs", model / "a_longer_name.bin", "--json")
    found = []
    for extra in ((), ("--untrained",), ("--untrained",), ("--untrained", "--seed", 1)):
        assert run_command(*arguments, *extra) == 0
        (result,) = json.loads(capsys.readouterr().out)
        found.append(result["threshold"])
    assert found[1] == found[2] != found[3]
    assert found[0] == pytest.approx(found[1])  # the model file itself holds the random weights of seed 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.pt",), "no such run folder"),
        (("model.pt",), "--backbone NAME"),
        (("model.pt", "--backbone", "mobilefacenet"), "choose the backbone, embedding_dim and image size"),
        (("model.pt", *OPTIONS, "--image-size", 33), "multiple of 16"),
        (("model.pt", *OPTIONS, "--embedding-dim", 0), "must be at least 1"),
        (("model.pt", *OPTIONS, "--device", "abacus"), "--device 'abacus'"),
        (("model.pt", *OPTIONS, "--untrained", "--batch-size", 0), "--batch-size 0"),
        ((".", *OPTIONS), "knows its own network"),
        ((".",), "checkpoint"),
        (("model.pt", *OPTIONS, "--pairs", "first.bin"), "share the name 'first'"),
    ],
)
def test_command_refuses_bad_input_in_one_line(model, monkeypatch, arguments, message):
    monkeypatch.chdir(model)
    with pytest.raises(ConfigError) as caught:
        run_command(*arguments, "--pairs", "first.bin")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
