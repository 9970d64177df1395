"""``pfc data clean`` as a user types it: what it leaves, on one rank and two, and what it says of bad input."""

import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from commands import pfc, run_warm, running, torchrun
from small_faces import make_small_faces, write_run

from data_pipeline import RecordReader, RecordWriter
from data_pipeline.relabel import read_relabel
from trainer.cli import main

pytestmark = pytest.mark.integration

FILES = ["cleaning.json", "relabel.tsv", "report.html"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on a data set of which one identity is another one's second folder, to the byte."""
    folder = tmp_path_factory.mktemp("clean")
    faces = make_small_faces(folder / "faces")
    with RecordReader(faces) as reader, RecordWriter(folder / "doubled.rec") as writer:
        images = [(reader[place].identity, reader[place].jpeg) for place in range(len(reader))]
        for identity, jpeg in [*images, *((9, jpeg) for identity, jpeg in images if identity == 4)]:
            writer.write(identity, jpeg)
    config = write_run(folder / "run.toml", output=folder / "run", faces=faces, steps=10)
    trained = run_warm(
        pfc("train", config, "--set", f"data.records={folder / 'doubled.rec'}", "--set", "evaluation.pairs=[]"),
        cwd=folder,
    )
    assert trained.code == 0, trained.err
    return folder


def clean(*arguments: str | Path) -> int:
    return main(["data", "clean", *map(str, arguments)])


@pytest.fixture(scope="module")
def found(folder: Path) -> Path:
    assert clean(folder / "run", "--output", folder / "found") == 0
    return folder / "found"


def test_a_second_folder_is_found_and_goes(folder: Path, found: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in found.iterdir()) == FILES
    numbers = json.loads((found / "cleaning.json").read_text())
    assert (numbers["split"][0]["keep"], numbers["split"][0]["other"]) == (4, 9)
    assert numbers["split"][0]["angle"] < 0.1, "the same images have the same mean"
    assert [each["identity"] for each in numbers["identities"]] == list(range(10))
    assert all(each["images"] == 7 for each in numbers["identities"])
    lines = (found / "relabel.tsv").read_text().splitlines()
    assert [line for line in lines if line.startswith("9\t")] == ["9\t4\tsplit: their means are 0 deg apart"]

    resharded = tmp_path / "better"
    applied = [
        "data",
        "reshard",
        folder / "doubled.rec",
        "--output",
        resharded,
        "--relabel-file",
        found / "relabel.tsv",
    ]
    assert main([str(part) for part in applied]) == 0
    with RecordReader(folder / "doubled.rec") as before, RecordReader(resharded) as after:
        expected = read_relabel(found / "relabel.tsv").apply(before.identities, found)
        assert after.identities.tolist() == expected[expected >= 0].tolist()
        assert 9 not in after.identities


def test_the_page_has_pictures_and_loads_nothing(found: Path) -> None:
    page = (found / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 14, "both folders of the split identity"
    assert "identities 4 and 9" in page
    assert "http" not in page.replace("http-equiv", "")


def test_two_ranks_find_the_same(folder: Path, found: Path) -> None:
    done = run_warm(torchrun(2, "data", "clean", folder / "run", "--output", folder / "found 2"), cwd=folder)
    assert done.code == 0, done.err
    one, two = (json.loads((each / "cleaning.json").read_text()) for each in (found, folder / "found 2"))
    assert (one["split"][0]["keep"], one["split"][0]["other"]) == (two["split"][0]["keep"], two["split"][0]["other"])
    for mine, other in zip(one["identities"], two["identities"], strict=True):
        assert mine["spread"] == pytest.approx(other["spread"], abs=0.2), "to what batches and float16 round"


def bad_input(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert clean(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, output = folder / "run", tmp_path / "new"
    there = tmp_path / "there"
    there.mkdir()
    assert "exists" in bad_input(capsys, trained, "--output", there)
    assert "does not exist" in bad_input(capsys, trained, "--output", tmp_path / "no" / "new")
    assert "no such run folder" in bad_input(capsys, tmp_path / "none", "--output", output)
    assert "no complete checkpoint" in bad_input(capsys, there, "--output", output)
    assert "holds no .rec file" in bad_input(capsys, trained, "--output", output, "--records", there)
    assert "63 images" in bad_input(capsys, trained, "--output", output, "--records", folder / "faces")
    assert "--strictness" in bad_input(capsys, trained, "--output", output, "--strictness", "0")

    # As many images, but of people that the run does not know.
    with RecordWriter(tmp_path / "other.rec") as writer, RecordReader(folder / "doubled.rec") as reader:
        for place in range(len(reader)):
            writer.write(reader[place].identity + 1, reader[place].jpeg)
    assert "is not what" in bad_input(capsys, trained, "--output", output, "--records", tmp_path / "other.rec")

    # A damaged checkpoint is told as what it is.
    torn = tmp_path / "torn"
    shutil.copytree(trained, torn)
    for path in torn.glob("checkpoints/*/rank_0000.bin"):
        path.write_bytes(path.read_bytes()[:-1])
    assert "use another checkpoint" in bad_input(capsys, torn, "--output", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.idx", "other.rec", "there", "torn"]


def test_killed_it_leaves_no_output_and_the_next_one_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, draft = folder / "killed", folder / ".killed.unfinished"
    with running(pfc("data", "clean", folder / "run", "--output", output), cwd=folder) as process:
        end = time.monotonic() + 60
        while not (draft / "embeddings.npy").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not output.exists()
    other = os.open(draft, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)  # as another command that is at work there
    assert "another command is writing" in bad_input(capsys, folder / "run", "--output", output)
    assert (draft / "embeddings.npy").exists()
    os.close(other)
    assert clean(folder / "run", "--output", output) == 0
    assert sorted(path.name for path in output.iterdir()) == FILES
    assert not draft.exists()


def test_a_bad_image_that_the_run_passed_over_is_passed_over(folder: Path, tmp_path: Path) -> None:
    with RecordReader(folder / "doubled.rec") as reader, RecordWriter(tmp_path / "doubled.rec") as writer:
        for place in range(len(reader)):
            writer.write(reader[place].identity, b"no image" if place == 30 else reader[place].jpeg)
        owner = int(reader.identities[30])
    config = write_run(tmp_path / "run.toml", output=tmp_path / "run", faces=folder / "faces", steps=1)
    settings = [f"data.records={tmp_path / 'doubled.rec'}", "evaluation.pairs=[]", "data.bad_images=skip"]
    trained = run_warm(
        pfc("train", config, *(part for each in settings for part in ("--set", each)), "--set", "schedule.warmup=0"),
        cwd=tmp_path,
    )
    assert trained.code == 0, trained.err
    assert clean(tmp_path / "run", "--output", tmp_path / "found") == 0
    numbers = json.loads((tmp_path / "found" / "cleaning.json").read_text())
    counts = {each["identity"]: each["images"] for each in numbers["identities"]}
    assert counts.pop(owner) == 6
    assert set(counts.values()) == {7}
    assert np.isfinite([each["spread"] for each in numbers["identities"]]).all()
    assert "1 more cannot be used" in (tmp_path / "found" / "report.html").read_text()
