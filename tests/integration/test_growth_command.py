"""Growing as a user types it, on one rank and on two: who stays is recognised, who joins is known, training goes on."""

import json
import math
from pathlib import Path

import pytest
import torch
from commands import Finished, pfc, run_warm, torchrun
from growing import NEW, OLD, images_of, write_people
from growing_runs import centers_of, write_run
from small_faces import make_small_faces
from torch.nn.functional import normalize

from data_pipeline import RecordReader
from trainer.checkpoint import complete_checkpoints, load_backbone

pytestmark = pytest.mark.integration

STAYS = [number for number, name in enumerate(NEW) if name in OLD]
WERE = [OLD.index(NEW[number]) for number in STAYS]
OLD_STEPS, STEPS = 10, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old run, and what has grown from it on one rank and on two."""
    folder = tmp_path_factory.mktemp("growth")
    faces = make_small_faces(folder / "faces")
    pairs = [f'evaluation.pairs=["{faces}/verification.bin"]', "evaluation.at_start=true"]
    old = write_run(
        folder / "old.toml",
        output=folder / "old",
        records=write_people(folder / "old people", OLD),
        steps=OLD_STEPS,
    )
    done = train(old, 1, *pairs)
    assert done.code == 0, done.err
    records = write_people(folder / "new people", NEW)
    for ranks in (1, 2):
        name = f"grown {ranks}"
        config = write_run(
            folder / f"{name}.toml",
            output=folder / name,
            records=records,
            old=folder / "old",
            steps=STEPS,
            batch_size=6 // ranks,
        )
        done = train(config, ranks, *pairs)
        assert done.code == 0, done.err
        assert "8 identities stay, 4 are new, 2 leave" in done.err
        assert "Traceback" not in done.err
    return folder


def train(config: Path, ranks: int, *settings: str) -> Finished:
    sets = [part for setting in settings for part in ("--set", setting)]
    command = torchrun(ranks, "train", config, *sets) if ranks > 1 else pfc("train", config, *sets)
    return run_warm(command, cwd=config.parent)


def accuracy(run_folder: Path, step: int) -> float:
    found = json.loads((run_folder / "evaluations" / f"step_{step:08d}" / "verification.json").read_text())
    return float(found["accuracy_mean"])


def logged(run_folder: Path, event: str) -> list[dict[str, object]]:
    lines = (run_folder / "logs" / "rank_0000.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def centers(folder: Path, name: str, step: int, people: list[str]) -> torch.Tensor:
    checkpoint = folder / name / "checkpoints" / f"step_{step:08d}"
    return centers_of(folder / f"{name}.toml", checkpoint, len(people))


@pytest.mark.parametrize("ranks", [1, 2])
def test_who_stays_is_recognised_at_the_first_step(folder: Path, ranks: int) -> None:
    grown = folder / f"grown {ranks}"
    before, after = centers(folder, "old", OLD_STEPS, OLD), centers(folder, f"grown {ranks}", 0, NEW)
    torch.testing.assert_close(after[STAYS], before[WERE], rtol=1e-6, atol=1e-8)
    # The verification sees the backbone alone: as good as it was, before any step.
    assert accuracy(grown, 0) == pytest.approx(accuracy(folder / "old", OLD_STEPS), abs=1e-9)
    # Angles of the images to these centers, computed plainly.
    backbone = load_backbone(folder / "old", torch.device("cpu")).module.eval()
    with RecordReader(folder / "new people") as reader, torch.no_grad():
        places = [int((reader.identities == number).argmax()) for number in STAYS]
        embeddings = normalize(backbone(images_of(reader, places)).double())
    theirs = normalize(before[WERE].double())
    angles, of_others = ((embeddings * each).sum(dim=1).acos() for each in (theirs, theirs.roll(1, 0)))
    (told,) = logged(grown, "grown")
    assert told["own_angle"] == pytest.approx(float(angles.mean()), abs=5e-6)
    assert abs(float(angles.mean() - of_others.mean())) > 2e-5, "with anybody else's center it would be another"
    assert (told["kept"], told["new"], told["left"], told["vacant"], told["unusable"]) == (8, 4, 2, 0, 0)


def test_any_number_of_ranks_grows_the_same(folder: Path) -> None:
    assert torch.equal(centers(folder, "grown 1", 0, NEW), centers(folder, "grown 2", 0, NEW))


@pytest.mark.parametrize("ranks", [1, 2])
def test_names_go_with_the_run_and_training_goes_on(folder: Path, ranks: int) -> None:
    grown = folder / f"grown {ranks}"
    names = "".join(f"{number}\t{name}\n" for number, name in enumerate(NEW)).encode()
    assert (grown / "identities.tsv").read_bytes() == names
    assert (folder / "old" / "identities.tsv").read_bytes().decode().split("\n")[2] == "2\t山田 太郎"
    assert [path.name for path in complete_checkpoints(grown)] == [f"step_{step:08d}" for step in (0, 2, STEPS)]
    lines = [json.loads(line) for line in (grown / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(math.isfinite(line["loss"]) and line["num_identities"] == len(NEW) for line in lines)
    begun, ended = (centers(folder, f"grown {ranks}", step, NEW) for step in (0, STEPS))
    assert ((begun - ended).norm(dim=1) > 0).all(), "all of them learn"
