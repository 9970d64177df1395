"""The commands that write data sets: what they print, and that ending them in any way leaves no half data set."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import pfc, run_warm, running
from small_faces import make_small_faces, write_run
from training_here import train_here

from data_pipeline import DataError, RecordReader
from data_pipeline.record_set import UNFINISHED, find_records
from trainer.cli import main

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60.0


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def wait_for_records(output: Path, process: "subprocess.Popen[str]", size: int) -> None:
    records, end = output / UNFINISHED / "0.rec", time.monotonic() + DEADLINE_SECONDS
    while not records.exists() or records.stat().st_size < size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


SYNTH = ("--identities", "200000", "--images-per-identity", "5", "--pairs", "20", "--style", "simple")


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with running(pfc("data", "synth", output, *SYNTH, "--workers", "2"), cwd=tmp_path) as process:
        wait_for_records(output, process, 100_000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert err == "pfc: error: interrupted; nothing half-done is left\n"
    assert not output.exists()


def test_kill_leaves_no_data_set_and_the_next_command_tidies_up(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with running(pfc("data", "synth", output, *SYNTH), cwd=tmp_path) as process:
        wait_for_records(output, process, 100_000)
        process.kill()
        process.wait()
    assert [path.name for path in output.iterdir()] == [UNFINISHED]
    with pytest.raises(DataError, match="an unfinished one lies in"):
        find_records(output)
    finished = run_warm(pfc("data", "reshard", faces, "--output", output, "--shards", "3", "--shuffle"), cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert f"{output}/train-00000-of-00003.rec to train-00002-of-00003.rec: 9 identities, 63 images" in finished.out
    assert not (output / UNFINISHED).exists()
    assert len(RecordReader(find_records(output))) == 63


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit (util-linux)")
@pytest.mark.parametrize("command", ["reshard", "pack", "synth"])
def test_a_full_disk(command: str, faces: Path, tmp_path: Path) -> None:
    """A file size limit makes write() fail exactly as a full disk does, only with another reason in the message."""
    output = tmp_path / "out"
    arguments: list[str | Path] = [faces, "--output", output]
    if command == "pack":
        for name in ("ann", "bob"):
            (tmp_path / "images" / name).mkdir(parents=True)
            with RecordReader(faces / "train.rec") as reader:
                for number in range(40):
                    (tmp_path / "images" / name / f"{number}.jpg").write_bytes(reader[number].jpeg)
        arguments = [tmp_path / "images", "--output", output, "--image-size", "48"]
    elif command == "synth":
        arguments = [output, *SYNTH]
    whole = pfc("data", command, *arguments)
    failed = run_warm(["prlimit", "--fsize=20000", *whole], cwd=tmp_path)
    assert (failed.code, len(failed.error_lines), len(failed.err.splitlines())) == (1, 1, 1), failed.err
    assert str(output) in failed.err
    assert "File too large" in failed.err
    if command == "pack":
        assert "--resume to continue" in failed.err
        with pytest.raises(DataError, match="unfinished"):
            find_records(output)
        assert run_warm([*whole, "--resume"], cwd=tmp_path).code == 0
        assert len(RecordReader(find_records(output))) == 80
    else:
        assert not output.exists()


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_wrong_input_is_refused(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        (("reshard", faces, "--output", faces), "choose another output"),
        (("noise", faces, "--output", faces / "noisy", "--closed-set", "0.1"), "choose an output elsewhere"),
        (("reshard", tmp_path / "absent", "--output", out), "does not exist"),
        (("pack", tmp_path / "absent", "--output", out), "does not exist"),
        (("pack", faces / "train.rec", "--output", out), "is not UTF-8 text"),
        (("noise", faces, "--output", out, "--open-set", "0.1"), "--distractors"),
        (("reshard", faces, "--output", out, "--shards", "64"), "63 images cannot fill 64 shards"),
        (("reshard", faces, "--output", out, "--bytes-per-shard", "1K"), "bytes per shard is 1024"),
        (("synth", out, "--identities", "0", "--images-per-identity", "1"), "identities = 0"),
    ):
        assert message in refused(capsys, "data", *arguments)
    assert not out.exists()


def test_a_run_takes_a_folder_of_shards(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sharded"
    assert main(["data", "reshard", str(faces), "--output", str(folder), "--shards", "2"]) == 0
    shutil.copy(faces / "verification.bin", folder)
    config = write_run(tmp_path / "run.toml", output=tmp_path / "run", faces=folder, steps=3)
    finished = run_warm(pfc("train", config, "--set", "schedule.warmup=0"), cwd=tmp_path)
    assert finished.code == 0, finished.err
    (folder / "train-00001-of-00002.rec").unlink()
    capsys.readouterr()
    assert "holds 1 of 2 record shards" in refused(capsys, "data", "inspect", folder)
    assert train_here(config) == 2
    assert "holds 1 of 2 record shards" in capsys.readouterr().err
