"""A run killed or stopped while it grows, and started again, equals the run that grew undisturbed, bit for bit."""

import signal
from pathlib import Path

import pytest
from checkpoint_reading import assert_identical, everything
from forked_trainers import Ended, Job, run_jobs
from growing import NEW, OLD, write_people
from growing_runs import write_run

pytestmark = pytest.mark.integration

STEPS = 3
KILLED = ("before embedding", "embedding", "before the first checkpoint", "after the first checkpoint")
# Of two ranks the first publishes; elsewhere the second one is struck.
STRUCK = {1: dict.fromkeys(KILLED, 0), 2: {"embedding": 1, "before the first checkpoint": 0}}
CASES = [(ranks, place) for ranks, places in STRUCK.items() for place in places]
AGAIN = " again"


def grows(folder: Path, name: str, ranks: int, place: str | None = None, **struck: int) -> Job:
    """A run that grows from ``folder/run`` into ``folder/NAME``."""
    config = write_run(
        folder / f"{name}.toml",
        output=folder / name,
        records=folder / "new people",
        old=folder / "run",
        steps=STEPS,
        batch_size=6 // ranks,
    )
    return Job(["train", str(config)], str(folder / name), ranks, place, **struck)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ended]]:
    """The old run, undisturbed ones, and each of those that are struck followed by the same command again."""
    folder = tmp_path_factory.mktemp("growing")
    write_people(folder / "new people", NEW)
    records = write_people(folder / "old people", OLD)
    old = write_run(folder / "run.toml", output=folder / "run", records=records, steps=3)
    jobs = {"old": Job(["train", str(old)], str(folder / "run"))}
    jobs |= {f"whole {ranks}": grows(folder, f"whole {ranks}", ranks) for ranks in STRUCK}
    struck = {
        f"stopped {ranks}": grows(folder, f"stopped {ranks}", ranks, "embedding", signal=signal.SIGTERM, rank=ranks - 1)
        for ranks in STRUCK
    }
    for ranks, place in CASES:
        name = f"{place} {ranks}"
        struck[name] = grows(folder, name, ranks, place, rank=STRUCK[ranks][place])
    for name, each in struck.items():
        jobs |= {name: each, name + AGAIN: grows(folder, name, each.ranks)}
    return folder, run_jobs(jobs, folder / "jobs")


def final(folder: Path, name: str) -> dict[str, object]:
    return everything(folder / name / "checkpoints" / f"step_{STEPS:08d}")


@pytest.mark.parametrize(("ranks", "place"), CASES)
def test_killed(runs: tuple[Path, dict[str, Ended]], ranks: int, place: str) -> None:
    folder, ended = runs
    whole = ended[f"whole {ranks}"]
    assert ended["old"].codes == [0], ended["old"].told
    assert whole.codes == [0] * ranks, whole.told
    name = f"{place} {ranks}"
    killed, again = ended[name], ended[name + AGAIN]
    assert killed.codes[STRUCK[ranks][place]] == -signal.SIGKILL
    assert set(killed.codes) <= {-signal.SIGKILL, 1}, killed.told
    saved = [path for path in killed.left if path.startswith("checkpoints/step_")]
    assert bool(saved) == (place == "after the first checkpoint"), "a checkpoint is there whole or not at all"
    assert bool(killed.left) == ("first checkpoint" in place)

    assert again.codes == [0] * ranks, again.told
    assert ("growing from" in again.told[0]) == (not saved)
    assert_identical(final(folder, name), final(folder, f"whole {ranks}"))
    assert again.left == whole.left, "nothing half-done is left"


@pytest.mark.parametrize("ranks", list(STRUCK))
def test_stopped_on_request(runs: tuple[Path, dict[str, Ended]], ranks: int) -> None:
    """One of the ranks is asked; all end with 75, nothing is written, the same command starts over."""
    folder, ended = runs
    name = f"stopped {ranks}"
    stopped, again = ended[name], ended[name + AGAIN]
    assert stopped.codes == [75] * ranks, stopped.told
    assert "stopped on request while growing, nothing is written yet" in stopped.told[0]
    assert not any("Traceback" in told or "error" in told for told in stopped.told)
    assert stopped.left == []
    assert again.codes == [0] * ranks, again.told
    assert "growing from" in again.told[0]
    assert_identical(final(folder, name), final(folder, f"whole {ranks}"))
    assert again.left == ended[f"whole {ranks}"].left
