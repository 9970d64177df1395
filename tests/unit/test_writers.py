"""What writers of curves get, and that none of their troubles is the run's."""

import json
import sys
from pathlib import Path

import pytest

from trainer.config import load_config
from trainer.errors import ConfigError
from trainer.writers.config import LogConfig, WandbConfig
from trainer.writers.curves import line_curves
from trainer.writers.packages import require_packages
from trainer.writers.rows import LINE, Row, past_rows
from trainer.writers.run_writers import RunWriters
from trainer.writers.wandb_session import FILE, Session, open_session, remove_unsent

pytestmark = pytest.mark.unit


def line(step: int) -> dict[str, object]:
    return {
        "time": 1.7e9 + step,
        "step": step,
        "epoch": 0.5,
        "loss": -1.5,
        "loss_inter": None,  # not finite
        "mode": "dense",
        "mode_steps": {"dense": 3},
        "phase_seconds": {"data": 0.25},
        "world_size": 2,
        "a_later_key": 7,
    }


def test_curves_of_a_line() -> None:
    assert line_curves(line(1)) == {
        "train/epoch": 0.5,
        "loss/total": -1.5,
        "mode_steps/dense": 3.0,
        "phase_seconds/data": 0.25,
        "train/a_later_key": 7.0,
    }


def write_past(folder: Path) -> None:
    lines = [json.dumps(line(step)) for step in (10, 20, 30)]
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], '{"torn', lines[1], lines[2]]) + "\n")
    for step in (0, 20, 40):
        numbers = {"step": step, "name": "lfw", "accuracy_mean": 0.5, "auc": 0.5, "equal_error_rate": 0.5}
        path = folder / f"evaluations/step_{step:08d}/lfw.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(numbers | {"tar_at_far": {"1e-1": 0.25, "1e-3": None}}))


def test_the_past_in_its_order(tmp_path: Path) -> None:
    assert list(past_rows(tmp_path, until=100)) == []
    write_past(tmp_path)
    rows = list(past_rows(tmp_path, until=30))
    assert [(row.step, row.part) for row in rows] == [(0, "lfw"), (10, LINE), (20, LINE), (20, "lfw"), (30, LINE)]
    assert rows[1].time == 1.7e9 + 10
    assert rows[0].curves == {
        "verification/lfw/accuracy": 0.5,
        "verification/lfw/auc": 0.5,
        "verification/lfw/equal_error_rate": 0.5,
        "verification/lfw/tar_at_far_1e-1": 0.25,
    }


class Failing:
    """A writer whose library raises from the second row on."""

    name = "failing"
    problem = None

    def __init__(self) -> None:
        self.rows = 0

    def write(self, row: Row) -> None:
        self.rows += 1
        if self.rows > 1:
            raise ValueError("the library\nis broken")

    def close(self, *, deadline_seconds: float) -> None:
        raise AssertionError("a writer that failed is not asked again")


class Troubled:
    """One that is well again after a while, and cannot be closed."""

    name = "troubled"

    def __init__(self) -> None:
        self.steps: list[int] = []

    @property
    def problem(self) -> str | None:
        return "disk full" if self.steps[-1] in (2, 3, 5) else None

    def write(self, row: Row) -> None:
        self.steps.append(row.step)

    def close(self, *, deadline_seconds: float) -> None:
        raise OSError("gone")


def test_one_warning_for_each_trouble_and_the_others_go_on() -> None:
    warnings: list[str] = []
    writers, troubled = RunWriters(warnings.append), Troubled()

    def unavailable() -> Failing:
        raise ImportError("no such module")

    writers.open("absent", unavailable)
    writers.open("failing", Failing)
    writers.open("troubled", lambda: troubled)
    for step in range(1, 7):
        writers.write_line(line(step))
    writers.close()
    assert troubled.steps == [1, 2, 3, 4, 5, 6]
    assert warnings == [
        "no curves for absent: no such module; the run goes on",
        "no more curves for failing: the library is broken; the run goes on",
        "curves for troubled are not written: disk full; the run goes on",
        "curves for troubled are not written: disk full; the run goes on",
        "curves for troubled: gone",
    ]


def rows(*places: tuple[int, str]) -> list[Row]:
    return [Row(step, part, 0.0, {}) for step, part in places]


def test_a_session_knows_what_was_handed_over() -> None:
    session = Session("a")
    seen = rows((10, LINE), (20, LINE), (20, "lfw"))
    for row in seen:
        assert not session.has(row)
        session.add(row)
    assert all(session.has(row) for row in [*seen, *rows((15, "cfp"))])
    assert not any(session.has(row) for row in rows((20, "cfp"), (30, LINE)))


def test_an_unfinished_session_is_written_again(tmp_path: Path) -> None:
    fresh = open_session(tmp_path)
    assert fresh.step == -1
    fresh.step, fresh.parts, fresh.unfinished = 20, [LINE], "offline-run-2-" + fresh.id
    folders = [tmp_path / "wandb" / f"offline-run-{number}-{fresh.id}" for number in (1, 2)]
    for folder in folders:
        folder.mkdir(parents=True)
    fresh.save(tmp_path)
    again = open_session(tmp_path)
    assert again == Session(fresh.id, 20, [LINE])
    assert [folder.exists() for folder in folders] == [True, False]


def test_what_was_uploaded_is_not_removed(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    sent, unsent, other = (tmp_path / "wandb" / name for name in ("sent", "unsent", "run-3"))
    sent = sent.with_name(f"offline-run-1-{session.id}")
    unsent = unsent.with_name(f"offline-run-2-{session.id}")
    for folder in (sent, unsent, other):
        folder.mkdir(parents=True)
    (sent / f"run-{session.id}.wandb.synced").touch()
    session.unfinished = sent.name
    session.save(tmp_path)
    assert open_session(tmp_path).unfinished is None
    assert sent.exists()
    remove_unsent(tmp_path, session)
    assert [folder.exists() for folder in (sent, unsent, other)] == [True, False, True]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id": "a", "step": "x", "parts": [], "unfinished": null}'])
def test_a_broken_note_is_a_new_run(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    assert open_session(tmp_path).step == -1


def test_a_note_names_no_folder_elsewhere(tmp_path: Path) -> None:
    outside = tmp_path / "offline-run-1-a"
    outside.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / FILE).write_text(json.dumps({"id": "a", "step": 1, "parts": [], "unfinished": "../../offline-run-1-a"}))
    open_session(run)
    assert outside.exists()


@pytest.mark.parametrize(
    ("package", "config"),
    [("tensorboard", LogConfig(tensorboard=True)), ("wandb", LogConfig(wandb=WandbConfig(project="faces")))],
)
def test_a_missing_package_is_said_before_anything_begins(
    package: str, config: LogConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as the import system marks what is not there
    with pytest.raises(
        ConfigError, match=rf"log\.{package} needs the package {package}.*pip install 'pfc\[{package}\]'"
    ):
        require_packages(config)
    require_packages(LogConfig())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("log.wandb={project = 'a', api_key = 'x'}", "unknown key 'log.wandb.api_key'"),
        ("log.wandb.mode=online", "'log.wandb.project' is missing"),
        ("log.wandb={project = 'a', mode = 'disabled'}", "log.wandb.mode: Input should be 'online' or 'offline'"),
        ("log.tensorbord=true", "unknown key 'log.tensorbord'; the nearest known key is 'log.tensorboard'"),
    ],
)
def test_the_configuration_is_checked(override: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[run]\noutput = "a"\n[data]\nrecords = "b"\n[train]\nsteps = 1\n')
    with pytest.raises(ConfigError, match=message):
        load_config(path, [override])
