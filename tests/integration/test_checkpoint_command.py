"""``pfc checkpoint list|inspect|verify`` on what is whole (0), damaged (1) and no checkpoint (2): one line says why."""

import json
import shutil
from pathlib import Path

import pytest
from commands import pfc, run_warm
from damages import DAMAGES
from training_on_ranks import continue_run

from trainer.cli import main

pytestmark = pytest.mark.integration

COMMANDS = ("list", "inspect", "verify")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    for _ in range(2):
        continue_run(0, 1, folder, "sface", 1)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def newest(folder: Path) -> Path:
    return folder / "checkpoints" / "step_00000002"


@pytest.mark.parametrize("command", COMMANDS)
def test_whole(command: str, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", command, str(whole)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "damaged" not in told.out
    if command != "inspect":
        assert len(told.out.splitlines()) == 2, "one line each"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_description(damage: str, command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES[damage](newest(folder) / "checkpoint.json")
    assert_damaged(command, folder, newest(folder) / "checkpoint.json", capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "damage", ["missing", "empty", "torn in the middle", "torn at the last byte", "a byte appended"]
)
def test_numbers_of_another_length(damage: str, command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES[damage](newest(folder) / "rank_0000.bin")
    assert_damaged(command, folder, newest(folder) / "rank_0000.bin", capsys)


@pytest.mark.parametrize("damage", ["a bit of the first byte", "a bit of the last byte", "a page of zeros"])
def test_only_verify_reads_every_byte(damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES[damage](newest(folder) / "rank_0000.bin")
    assert_damaged("verify", folder, newest(folder) / "rank_0000.bin", capsys)
    assert main(["checkpoint", "list", str(folder)]) == 0


def assert_damaged(command: str, folder: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the run and of the checkpoint itself: exit code 1, one line that names the file."""
    for path in (folder, newest(folder)) if command != "list" else (folder,):
        assert main(["checkpoint", command, str(path)]) == 1
        told = capsys.readouterr()
        lines = (told.err if command == "inspect" else told.out).splitlines()
        (line,) = (line for line in lines if str(file) in line)
        assert "use another checkpoint" in line
        assert "Traceback" not in told.err
        if command != "inspect":
            assert told.err == ""
            assert len(lines) == (2 if path == folder else 1)
    assert main(["checkpoint", command, str(folder), "--json"]) == 1
    out = capsys.readouterr().out
    if command != "inspect":
        assert json.loads(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_checkpoint(command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, photos, file = tmp_path / "empty", tmp_path / "photos", tmp_path / "file"
    empty.mkdir()
    photos.mkdir()
    (photos / "step_one.jpg").touch()
    file.write_text("no folder")
    never = tmp_path / "never saved"
    (never / "checkpoints").mkdir(parents=True)
    for path in (empty, photos, file, never, tmp_path / "nowhere"):
        assert main(["checkpoint", command, str(path)]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        (line,) = told.err.splitlines()
        assert line.startswith(f"pfc: error: {path}: ")

    description = newest(folder) / "checkpoint.json"
    assert main(["checkpoint", command, str(description)]) == 2, "one of its files is not a checkpoint"
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_as_a_user_types_it(folder: Path) -> None:
    DAMAGES["torn in the middle"](newest(folder) / "rank_0000.bin")
    ended = run_warm(pfc("checkpoint", "inspect", folder), cwd=folder.parent)
    assert ended.code == 1
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith(f"pfc: error: {newest(folder)}/rank_0000.bin: ends at byte ")
