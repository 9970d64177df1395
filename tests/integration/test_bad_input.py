"""Bad input gets one clear line and exit code 2, and nothing is written."""

import shutil
from pathlib import Path

import pytest
from commands import pfc, run_warm, torchrun
from small_faces import make_small_faces, write_run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


@pytest.fixture
def own_faces(faces: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(faces, tmp_path / "faces"))


def refuse(tmp_path: Path, faces: Path, *overrides: str) -> str:
    """Train as configured; it must end with one line, exit code 2 and no output folder. Returns the line."""
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces)
    sets = [part for override in overrides for part in ("--set", override)]
    finished = run_warm(pfc("train", config, *sets), cwd=tmp_path)
    assert finished.code == 2, finished.err
    assert len(finished.err.strip().splitlines()) == 1, finished.err
    assert not output.exists()
    return finished.error_lines[0]


def test_missing_index_of_a_cut_file(own_faces: Path, tmp_path: Path) -> None:
    (own_faces / "train.idx").unlink()
    with (own_faces / "train.rec").open("r+b") as file:
        file.truncate(5000)
    line = refuse(tmp_path, own_faces)
    assert str(own_faces / "train.idx") in line
    assert "rebuild" in line


def test_truncated_records(own_faces: Path, tmp_path: Path) -> None:
    records = own_faces / "train.rec"
    with records.open("r+b") as file:
        file.truncate(records.stat().st_size * 2 // 3)
    line = refuse(tmp_path, own_faces)
    assert str(records) in line
    assert "byte" in line


def test_missing_records(tmp_path: Path) -> None:
    assert "train.rec" in refuse(tmp_path, tmp_path / "nowhere" / "train.rec")


def test_identity_outside_the_classes(faces: Path, tmp_path: Path) -> None:
    line = refuse(tmp_path, faces, "data.num_identities=5")
    assert "identity 5" in line
    assert "[0, 5)" in line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batchsize=8", "the nearest known key is 'data.batch_size'"),
        ("data.batch_size=64", "batch"),
        ("run.world_size=2", "run.world_size is 2, the launcher started 1"),
        ("run.device=cuda", "this machine has 0"),
        ("data.image_size=50", "multiple of 16"),
        ("schedule.warmup=500", "schedule.warmup lasts 500 of 24 steps"),
        ('evaluation.pairs=["absent.bin"]', "absent.bin"),
        ('backbone.pretrained="absent.pt"', "absent.pt"),
    ],
)
def test_bad_values(faces: Path, tmp_path: Path, override: str, message: str) -> None:
    assert message in refuse(tmp_path, faces, override)


def test_pairs_that_would_run_code(faces: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "evil.bin"
    pairs.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    line = refuse(tmp_path, faces, f"evaluation.pairs=['{pairs}']")
    assert "evil.bin" in line
    assert not (tmp_path / "ran").exists()


def test_an_output_folder_that_holds_something_else(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=2)
    output.mkdir()
    (output / "thesis.txt").write_text("precious")
    finished = run_warm(pfc("train", config, "--set", "schedule.warmup=0"), cwd=tmp_path)
    assert (finished.code, len(finished.error_lines)) == (2, 1)
    assert "is not empty and holds no run" in finished.err
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]


def test_an_output_that_is_a_file(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("precious")
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=2)
    finished = run_warm(pfc("train", config, "--set", "schedule.warmup=0"), cwd=tmp_path)
    assert (finished.code, len(finished.error_lines)) == (2, 1)
    assert f"run.output {output} is a file: name a folder" in finished.err
    assert output.read_text() == "precious"


def test_an_output_folder_that_holds_another_run(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=2)
    command = pfc("train", config, "--set", "schedule.warmup=0")
    assert run_warm(command, cwd=tmp_path).code == 0
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    finished = run_warm([*command, "--set", "optimizer.lr=0.2"], cwd=tmp_path)
    assert (finished.code, len(finished.error_lines)) == (2, 1)
    assert "holds another run (optimizer.lr is 0.05 there, 0.2 here)" in finished.err
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    # What does not touch the learning may change.
    assert run_warm([*command, "--set", "log.every_steps=7"], cwd=tmp_path).code == 0


def test_two_ranks_are_told_too(faces: Path, tmp_path: Path) -> None:
    """Each rank says its line and leaves; none is left waiting for the others."""
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces)
    finished = run_warm(torchrun(2, "train", config, "--set", "data.batch_size=40"), cwd=tmp_path)
    assert finished.code != 0
    assert "rank 0: " in finished.error_lines[0] or "rank 1: " in finished.error_lines[0]
    assert "exitcode  : 2" in finished.err
    assert not output.exists()
    output.mkdir()
    (output / "thesis.txt").write_text("precious")
    finished = run_warm(torchrun(2, "train", config), cwd=tmp_path)
    assert "exitcode  : 2" in finished.err
    assert "holds no run" in finished.error_lines[0]


def test_another_number_of_ranks_needs_the_same_global_batch(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=4)
    assert run_warm(pfc("train", config), cwd=tmp_path).code == 0
    finished = run_warm(torchrun(2, "train", config), cwd=tmp_path)
    assert "exitcode  : 2" in finished.err
    assert "global_batch 8 but this loader has 16" in finished.error_lines[0]
    finished = run_warm(torchrun(2, "train", config, "--set", "data.batch_size=4"), cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "this run has taken all its 4 steps" in finished.err


def test_damaged_checkpoints(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=8)
    config.write_text(config.read_text().replace("[checkpoint]", "[checkpoint]\nkeep_best = 0"))
    assert run_warm(pfc("train", config), cwd=tmp_path).code == 0
    older, newest = sorted((output / "checkpoints").iterdir())
    numbers = newest / "rank_0000.bin"
    numbers.write_bytes(numbers.read_bytes()[:1000])
    finished = run_warm(pfc("eval", output, "--pairs", faces / "verification.bin"), cwd=tmp_path)
    assert (finished.code, len(finished.error_lines)) == (2, 1)
    assert f"{numbers}: ends at byte 1000" in finished.err

    finished = run_warm(pfc("train", config), cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert f"warning: {numbers}: ends at byte 1000" in finished.err
    assert "continuing at step 5" in finished.err
    assert run_warm(pfc("checkpoint", "verify", output), cwd=tmp_path).code == 0, "it was written again"

    for folder in (older, newest):
        (folder / "rank_0000.bin").unlink()
    finished = run_warm(pfc("train", config), cwd=tmp_path)
    assert (finished.code, len(finished.error_lines)) == (2, 1)
    assert "none of its 2 checkpoints is whole" in finished.err


def test_a_diverging_run_stops_before_it_spoils_anything(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces)
    finished = run_warm(pfc("train", config, "--set", "optimizer.lr=1e30"), cwd=tmp_path)
    assert (finished.code, len(finished.error_lines)) == (1, 1)
    assert "the loss is not finite" in finished.err
    assert "lower optimizer.lr" in finished.err
    assert not list((output).glob("checkpoints/step_*")), "no checkpoint of a broken model"
