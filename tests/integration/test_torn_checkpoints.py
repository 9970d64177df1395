"""Whatever happens to whichever file of the newest checkpoint: the run says so and goes on from the one before.

And it learns, to the last bit, what the run learns to which nothing happened.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkpoint_reading import assert_identical, everything
from damages import DAMAGES
from small_faces import make_small_faces, write_run
from training_here import train_here

from trainer.cli import main

pytestmark = pytest.mark.integration

BEFORE, NEWEST, LAST = (f"step_{step:08d}" for step in (2, 4, 6))
FILES = ("checkpoint.json", "rank_0000.bin")


@dataclass(frozen=True)
class Run:
    """A run folder with three checkpoints, and the configuration it came from."""

    output: Path
    faces: Path

    @property
    def last(self) -> Path:
        return self.output / "checkpoints" / LAST


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Run]:
    """By whether checkpoints were written beside the training."""
    faces = make_small_faces(tmp_path_factory.mktemp("faces") / "faces")
    runs = {}
    for asynchronous in (True, False):
        folder = tmp_path_factory.mktemp("whole")
        runs[asynchronous] = Run(folder / "out", faces)
        assert train(runs[asynchronous], folder, asynchronous=asynchronous) == 0
    return runs


def train(run: Run, folder: Path, *, asynchronous: bool) -> int:
    config = write_run(folder / "run.toml", output=run.output, faces=run.faces, steps=6)
    settings = ("checkpoint.every_steps=2", f"checkpoint.asynchronous={str(asynchronous).lower()}")
    return train_here(config, *settings, "evaluation.pairs=[]")


def cut_short(whole: Run, folder: Path) -> Run:
    """A copy, as if it had been killed after the checkpoint before the last one."""
    shutil.copytree(whole.output, folder / "out")
    run = Run(folder / "out", whole.faces)
    shutil.rmtree(run.last)
    return run


def test_it_is_the_same_checkpoint_however_it_was_written(whole_runs: dict[bool, Run]) -> None:
    assert_identical(everything(whole_runs[True].last), everything(whole_runs[False].last))


CASES = [(file, damage, True) for file in FILES for damage in DAMAGES]
CASES += [(file, "torn in the middle", False) for file in FILES]


@pytest.mark.parametrize(("file", "damage", "asynchronous"), CASES)
def test_it_goes_on_from_the_one_before(
    file: str,
    damage: str,
    asynchronous: bool,
    whole_runs: dict[bool, Run],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole = whole_runs[asynchronous]
    run = cut_short(whole, tmp_path)
    damaged = run.output / "checkpoints" / NEWEST / file
    DAMAGES[damage](damaged)
    assert train(run, tmp_path, asynchronous=asynchronous) == 0
    told = capfd.readouterr().err.splitlines()
    (line,) = (line for line in told if line.startswith("warning: "))
    assert re.fullmatch(rf"warning: {damaged}: .+: this run goes on from the one before", line)
    assert any(line.startswith("continuing at step 2: ") for line in told)
    log = [json.loads(line) for line in (run.output / "logs/rank_0000.jsonl").read_text().splitlines()]
    (noted,) = (event for event in log if event["event"] == "damaged checkpoint")
    assert noted["reason"].startswith(f"{damaged}: ")

    assert_identical(everything(run.last), everything(whole.last))
    assert sorted(path.name for path in (run.output / "checkpoints").iterdir()) == [BEFORE, NEWEST, LAST]
    assert main(["checkpoint", "verify", str(run.output)]) == 0
