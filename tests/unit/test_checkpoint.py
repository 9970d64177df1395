"""Checkpoints in a world of one: nothing is lost, nothing torn is taken for whole, no file can do harm."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_reading import everything
from training_on_ranks import continue_run, new_trained, train_steps

from trainer.checkpoint import (
    CheckpointSaver,
    DamagedCheckpointError,
    Position,
    Retention,
    Trained,
    find_checkpoint,
    load_checkpoint,
    load_newest,
    read_description,
)
from trainer.checkpoint.storage import RawReader
from trainer.checkpoint.tree import empty_tensors, join_tree, split_tree
from trainer.cli import main
from trainer.config import config_from
from trainer.errors import ConfigError
from trainer.world import World

pytestmark = pytest.mark.unit

ALONE = World(0, 1, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    continue_run(0, 1, folder, "sface", 3)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run" / "checkpoints" / "step_00000003"


def test_a_loaded_run_goes_on_bit_for_bit(saved: Path) -> None:
    ours, theirs = new_trained("sface"), new_trained("sface")
    position = load_checkpoint(saved / "checkpoints/step_00000003", ours, world=ALONE)
    assert (position.step, position.samples, position.loader) == (3, 36, {"epoch": 0, "samples": 0})
    train_steps(theirs, ALONE, range(6))
    train_steps(ours, ALONE, range(3, 6))
    assert torch.equal(ours.head.centers, theirs.head.centers)
    for name, value in ours.backbone.state_dict().items():
        assert torch.equal(value, theirs.backbone.state_dict()[name]), name


@pytest.mark.parametrize("loss", ["sface", "cosface"])
def test_centers_in_bfloat16_go_on_bit_for_bit_and_load_as_float32(loss: str, tmp_path: Path) -> None:
    ours = new_trained(loss, center_dtype="bfloat16")
    train_steps(ours, ALONE, range(3))
    save_of(ours, tmp_path / "bfloat16")
    resumed, widened = new_trained(loss, center_dtype="bfloat16"), new_trained(loss)
    for trained in (resumed, widened):
        assert load_checkpoint(tmp_path / "bfloat16/checkpoints/step_00000003", trained, world=ALONE).step == 3
    assert torch.equal(widened.head.stored_centers, ours.head.stored_centers.float())
    for trained in (ours, resumed):
        train_steps(trained, ALONE, range(3, 6))
    assert torch.equal(resumed.head.stored_centers, ours.head.stored_centers)
    save_of(widened, tmp_path / "float32")
    load_checkpoint(tmp_path / "float32/checkpoints/step_00000003", resumed, world=ALONE)
    assert torch.equal(resumed.head.stored_centers, widened.head.stored_centers.bfloat16())


def save_of(trained: Trained, folder: Path) -> None:
    """After three steps."""
    config = config_from(
        {"run": {"output": str(folder)}, "data": {"records": "train.rec"}, "train": {"steps": 99}}, "test"
    )
    folder.mkdir()
    saver = CheckpointSaver(folder, config=config, world=ALONE, retention=Retention(9))
    saver.save(trained, Position(3, 36, {"epoch": 0, "samples": 0}))
    saver.wait()


def test_any_nested_state_comes_back() -> None:
    state: dict[str, Any] = {
        "a": [1, 2.5, None, True, "x", torch.arange(5)],
        "b": {"c": torch.zeros(0, 3), "d": torch.tensor(1.5, dtype=torch.float64)},
        "e": float("inf"),
    }
    tree, tensors = split_tree(state, "name")
    tree = json.loads(json.dumps(tree))
    assert set(tensors) == {"name.a.5", "name.b.c", "name.b.d"}
    back = join_tree(tree, tensors)
    assert back["a"][:5] == state["a"][:5]
    assert back["e"] == state["e"]
    assert back["b"]["c"].shape == (0, 3)
    assert torch.equal(back["b"]["d"], state["b"]["d"])
    with pytest.raises(TypeError, match=r"name\.f: a checkpoint cannot hold set"):
        split_tree({"f": {1}}, "name")


def test_torn_or_altered_at_any_byte(folder: Path) -> None:
    draw = random.Random(4)
    world_before = new_trained("sface")
    target = new_trained("sface")
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in [0, 1, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(25))]:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << draw.randrange(8)
            for content in (whole[:place], bytes(flipped)):
                path.write_bytes(content)
                with pytest.raises(ConfigError, match=str(folder)) as caught:
                    load_checkpoint(folder, target, world=ALONE)
                assert "\n" not in str(caught.value)
                # A flip may turn one valid version number into another: that is refused as a format.
                assert isinstance(caught.value, DamagedCheckpointError) or "format" in str(caught.value)
        path.write_bytes(whole)
    assert torch.equal(target.head.centers, world_before.head.centers), "nothing of a damaged one was taken over"
    assert load_checkpoint(folder, target, world=ALONE).step == 3


def test_a_missing_file(folder: Path) -> None:
    (folder / "rank_0000.bin").unlink()
    with pytest.raises(DamagedCheckpointError, match=r"rank_0000\.bin: No such file"):
        load_checkpoint(folder, new_trained("sface"), world=ALONE)


def spoiled(folder: Path, change: Any) -> dict[str, Any]:
    tensors = read_description(folder).tensors
    change(tensors["centers"])
    return tensors


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(size=[10**12, 24]),
        lambda entry: entry.update(dtype="object"),
        lambda entry: entry.update(chunks=[]),
        lambda entry: entry["chunks"][0].update(file="../../etc/passwd"),
        lambda entry: entry["chunks"][0].update(begin=-4),
        lambda entry: entry["chunks"][0].update(size=10**12),
        lambda entry: entry["chunks"][0].update(offsets=[5, 0]),
        lambda entry: entry["chunks"][0].update(sizes=["x", 24]),
        lambda entry: entry["chunks"].append(entry["chunks"][0]),
        lambda entry: entry.pop("dtype"),
    ],
)
def test_an_index_that_lies_is_refused_before_anything_is_allocated(change: Any, folder: Path) -> None:
    with pytest.raises(DamagedCheckpointError):
        RawReader(folder, spoiled(folder, change))


def test_a_tree_cannot_ask_for_more_than_the_files_hold(folder: Path) -> None:
    metadata = RawReader(folder, read_description(folder).tensors).metadata
    with pytest.raises(ValueError, match="holds no centers"):
        empty_tensors({"$tensor": "centers", "size": [10**12], "dtype": "float32"}, metadata)
    with pytest.raises(ValueError, match="holds no other"):
        empty_tensors([{"$tensor": "other", "size": [4], "dtype": "float32"}], metadata)


def test_another_model_is_refused_and_left_alone(saved: Path) -> None:
    for other, message in (
        (new_trained("sface", classes=2500), "2203"),
        (new_trained("cosface"), "another kind of loss"),
    ):
        before = other.head.centers.detach().clone()
        with pytest.raises(ConfigError, match=rf"does not fit this run: .*{message}"):
            load_checkpoint(saved / "checkpoints/step_00000003", other, world=ALONE)
        assert torch.equal(other.head.centers, before)


def test_a_run_without_a_whole_checkpoint(folder: Path) -> None:
    (folder / "rank_0000.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="none of its 1 checkpoints is whole"):
        load_newest(folder.parents[1], new_trained("sface"), world=ALONE, seed=0)
    shutil.rmtree(folder)
    assert load_newest(folder.parents[1], new_trained("sface"), world=ALONE, seed=0) == (None, [])


def test_no_rank_writes_what_another_also_writes(saved: Path) -> None:
    found = everything(saved / "checkpoints/step_00000003")
    assert found["centers"].shape == (2203, 24)
    assert found["step"] == 3


def test_inspect_and_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = folder.parents[1]
    assert main(["checkpoint", "inspect", str(run_folder)]) == 0
    told = capsys.readouterr().out
    for expected in ("step                  3", "2,203 x 24", "UTC by 1 rank", "centers MiB"):
        assert expected in told
    assert main(["checkpoint", "verify", str(run_folder)]) == 0
    assert "whole" in capsys.readouterr().out
    path = folder / "rank_0000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["checkpoint", "verify", str(folder)]) == 1
    assert "damaged: " in capsys.readouterr().out
    assert main(["checkpoint", "inspect", str(run_folder / "nowhere")]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_a_run_may_have_the_name_of_a_checkpoint(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "step_00000012"
    shutil.copytree(saved, run)
    assert find_checkpoint(run) == run / "checkpoints" / "step_00000003"
