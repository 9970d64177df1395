"""``pfc data`` as typed, up to the errors that the command line prints."""

import argparse
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline import DataError, RecordReader
from data_pipeline.record_set import find_records
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
    assert run("inspect", tmp_path / "out", "--sheet", tmp_path / "sheet.png") == ExitCode.DONE, "by one scan"
    assert not index.exists()
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


def test_every_option_of_reshard_noise_and_synth_arrives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn, many = tmp_path / "drawn", ["--pairs", "20", "--unseen-identities", "2", "--style", "simple"]
    run(
        "synth", drawn, "--identities", "12", "--images-per-identity", "4", "--image-size", "16", *many, "--shards", "2"
    )
    assert "12 identities, 20 pairs of unseen identities" in capsys.readouterr().out
    assert len(RecordReader(find_records(drawn))) == 48
    (tmp_path / "clean.tsv").write_text("0\t1\nimage\t47\tdrop\n")
    out, noisy = tmp_path / "out", tmp_path / "noisy"
    run(
        "reshard", drawn, "--output", out, "--relabel-file", tmp_path / "clean.tsv", "--min-images", "4", "--relabel",
        "--hold-out", "4", "--pairs", "20", "--seed", "3", "--shuffle", "--images-per-shard", "9", "--plain",
    )  # fmt: skip
    printed = capsys.readouterr().out
    held_out_images = 20 if "24 images" in printed else 16  # the merged identity has eight
    shards = -(-(44 - held_out_images) // 9)
    assert f"{out}/train-00000-of-0000{shards}.rec to train-0000{shards - 1}-of-" in printed
    assert f"6 identities, {44 - held_out_images} images, {4 + held_out_images} images left out" in printed
    assert "20 pairs of 4 identities held out" in printed
    with RecordReader(find_records(out)) as reader:
        assert {shard.layout for shard in reader.shards} == {"plain"}
        assert sorted(set(reader.identities.tolist())) == list(range(6))
        assert reader.identities.tolist() != sorted(reader.identities.tolist())
    run(
        "noise", out, "--output", noisy, "--closed-set", "0.25", "--open-set", "0.1", "--distractors", drawn,
        "--bytes-per-shard", "64K",
    )  # fmt: skip
    count = 44 - held_out_images
    assert f"{count // 4} images with the identity of another (closed set), {round(0.1 * count)} replaced" in (
        capsys.readouterr().out
    )
    assert (noisy / "noise.tsv").read_text().count("\n") == 1 + count // 4 + round(0.1 * count)
    with pytest.raises(DataError, match="--overwrite"):
        run("noise", out, "--output", noisy)
    assert run("noise", out, "--output", noisy, "--overwrite") == ExitCode.DONE


@pytest.mark.parametrize("words", [["--shards", "2", "--images-per-shard", "3"], ["--bytes-per-shard", "2T"]])
def test_cuts_that_make_no_sense(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("reshard", tmp_path, "--output", tmp_path / "out", *words)
    assert caught.value.code == ExitCode.BAD_INPUT
    assert "error: argument" in capsys.readouterr().err
