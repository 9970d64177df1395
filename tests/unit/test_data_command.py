"""``pfc data`` as typed, up to the errors that the command line prints."""

import argparse
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline import DataError, RecordReader
from trainer.commands import data
from trainer.errors import ConfigError, ExitCode

pytestmark = pytest.mark.unit


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="pfc")
    data.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", *map(str, words)])
    return int(args.handler(args))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, colour in (("ann", "red"), ("bob", "blue")):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (30, 30), colour).save(tmp_path / "faces" / name / f"{number}.png")
    return tmp_path / "faces"


def test_pack_then_inspect(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "bob" / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        run("pack", tree, "--output", tmp_path / "out")
    assert run("pack", tree, "--output", tmp_path / "out", "--image-size", "20", "--skip-bad") == ExitCode.DONE
    printed = capsys.readouterr().out
    assert "left out: " in printed
    assert "2 identities, 6 images, 1 left out" in printed
    assert run("inspect", tmp_path / "out", "--sheet", tmp_path / "sheet.png") == ExitCode.DONE
    printed = capsys.readouterr().out
    assert "20x20 (100.0%)" in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 2 * 116 + 4


def test_the_index_is_rebuilt(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("pack", tree, "--output", tmp_path / "out")
    index = tmp_path / "out" / "train.idx"
    before = index.read_bytes()
    index.unlink()
    with pytest.raises(DataError, match="has no index"):
        run("inspect", tmp_path / "out")
    assert run("inspect", tmp_path / "out", "--rebuild-index") == ExitCode.DONE
    assert index.read_bytes() == before
    records = tmp_path / "out" / "train.rec"
    records.write_bytes(records.read_bytes()[:-10])
    run("inspect", records, "--rebuild-index")
    assert "hold no whole record" in capsys.readouterr().out
    assert len(RecordReader(records)) == 6


def test_a_sheet_that_cannot_be_written_is_refused_first(tree: Path, tmp_path: Path) -> None:
    run("pack", tree, "--output", tmp_path / "out")
    with pytest.raises(ConfigError, match="--sheet"):
        run("inspect", tmp_path / "out", "--sheet", tmp_path / "absent" / "sheet.png")


@pytest.mark.parametrize("words", [[], ["pack", "x"], ["synth", "x"], ["inspect"], ["unknown"]])
def test_incomplete_commands_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == ExitCode.BAD_INPUT
    assert "usage" in capsys.readouterr().err
