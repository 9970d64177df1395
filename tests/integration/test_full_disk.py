"""A disk that takes no more: one line, exit code 1, no half checkpoint, and the run goes on when there is room."""

import shutil
from pathlib import Path

import pytest
from commands import pfc, run, torchrun
from small_faces import make_small_faces, write_run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit (util-linux)"),
]

LARGEST_FILE = 200_000  # bytes: room for the journal and the logs, not for a backbone


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_checkpoint_that_does_not_fit(ranks: int, tmp_path: Path) -> None:
    faces = make_small_faces(tmp_path / "faces")
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=8, batch_size=8)
    command = pfc("train", config) if ranks == 1 else torchrun(ranks, "train", config)

    # A file size limit makes write() fail exactly as a full disk does, only with another reason in the message.
    failed = run(["prlimit", f"--fsize={LARGEST_FILE}", *command], cwd=tmp_path)
    assert failed.code == 1
    told = [line for line in failed.error_lines if "rank_0000.bin" in line]
    assert len(told) == ranks, "every rank says which file"
    assert "earlier ones are intact; make room and run the same command again" in told[0]
    assert len(failed.error_lines) == ranks, "each rank says one line"
    assert list((output / "checkpoints").iterdir()) == []

    finished = run(command, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert (output / "checkpoints" / "step_00000008" / "checkpoint.json").exists()
