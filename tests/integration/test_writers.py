"""Curves for TensorBoard and W&B of a real run that is killed, killed with all it started, stopped, and finished."""

import json
import os
import signal
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import kill_marked, marked, pfc, run_warm, running
from event_reading import read_scalars, read_texts
from prometheus_server import wait_for
from small_faces import make_small_faces, write_run
from wandb_reading import read_config, read_rows, sessions

from trainer.config import load_config

pytestmark = pytest.mark.integration

needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="no tensorboard: pip install tensorboard"
)
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="pip install wandb")

STEPS = 260
# Key in metrics.jsonl -> curve.
SHOWN = {
    "loss": "loss/total",
    "loss_inter": "loss/inter",
    "theta_positive": "angle_radians/positive",
    "active_pairs": "head/active_pairs",
    "images_per_second": "speed/images_per_second",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
}


def overrides(**settings: str) -> list[str]:
    chosen = {"log.tensorboard": "true"} if find_spec("tensorboard") else {}
    if find_spec("wandb"):
        chosen |= {"log.wandb.project": '"faces"', "log.wandb.mode": '"offline"', "log.wandb.tags": '["small"]'}
    return [f"--set={key}={value}" for key, value in (chosen | settings).items()]


def journal(output: Path) -> list[dict[str, float]]:
    path = output / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def session_is_open(output: Path) -> bool:
    try:
        return json.loads((output / "wandb_run.json").read_text())["unfinished"] is not None
    except FileNotFoundError:
        return find_spec("wandb") is None


def last_checkpoint(output: Path) -> int:
    return max((int(path.name[5:]) for path in (output / "checkpoints").glob("step_*")), default=0)


def disturb(command: list[str], folder: Path, output: Path, fault: Callable[[int, str], None]) -> int:
    """Run until there are steps beyond a new checkpoint and W&B has begun; then the fault; the exit code."""
    mark, before = uuid.uuid4().hex, last_checkpoint(output)
    with running(command, cwd=folder, mark=mark, printed=folder / "printed.txt") as process:

        def is_under_way() -> bool:
            assert process.poll() is None, (folder / "printed.txt").read_text()
            lines = journal(output)
            newest = last_checkpoint(output)
            return session_is_open(output) and newest > before and bool(lines) and lines[-1]["step"] > newest

        wait_for(is_under_way, "steps after a checkpoint", deadline_seconds=100)
        fault(process.pid, mark)
        code = process.wait(timeout=60)
        if code == -signal.SIGKILL:  # what W&B's process still does, it does within moments
            wait_for(lambda: find_spec("wandb") is None or not marked(mark), "all have ended", deadline_seconds=60)
        return code


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a past."""
    folder = tmp_path_factory.mktemp("writers")
    output = folder / "run"
    config = write_run(
        folder / "run.toml", output=output, faces=make_small_faces(folder / "faces"), steps=STEPS, batch_size=4
    )
    command = pfc("train", config, *overrides(), "--set=checkpoint.every_steps=10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_CACHE_DIR", str(folder / "cache"))
        patch.setenv("WANDB_CONFIG_DIR", str(folder / "config"))
        assert disturb(command, folder, output, lambda pid, mark: os.kill(pid, signal.SIGKILL)) == -signal.SIGKILL
        assert disturb(command, folder, output, lambda pid, mark: kill_marked(mark)) == -signal.SIGKILL
        assert disturb(command, folder, output, lambda pid, mark: os.kill(pid, signal.SIGTERM)) == 75
        finished = run_warm(command, cwd=folder, deadline_seconds=150)
    assert finished.code == 0, finished.err
    assert "warning" not in finished.err, finished.err
    assert [line["step"] for line in journal(output)] == list(range(1, STEPS + 1))
    return output


def verification(output: Path) -> dict[str, float]:
    numbers: dict[str, float] = json.loads((output / f"evaluations/step_{STEPS:08d}/verification.json").read_text())
    return numbers


@needs_tensorboard
def test_tensorboard_has_every_line_once(output: Path) -> None:
    assert len(list((output / "tensorboard").iterdir())) == 4, "a file for each process"
    scalars = read_scalars(output / "tensorboard")
    for key, curve in SHOWN.items():
        expected = [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in journal(output)]
        assert scalars[curve] == expected, curve
    phases = {curve for curve in scalars if curve.startswith("phase_seconds/")}
    assert phases == {f"phase_seconds/{name}" for name in journal(output)[0]["phase_seconds"]}  # type: ignore[attr-defined]
    accuracy = pytest.approx(verification(output)["accuracy_mean"], rel=1e-6)
    assert scalars["verification/verification/accuracy"] == [(STEPS, accuracy)]
    (text,) = read_texts(output / "tensorboard")["config/text_summary"]
    assert "\n".join(line[4:] for line in text.splitlines()) == (output / "run.toml").read_text().rstrip()


@needs_wandb
def test_wandb_has_every_line_once(output: Path) -> None:
    rows = read_rows(output)
    lines = [row for row in rows if "loss/total" in row]
    assert [row["step"] for row in lines] == list(range(1, STEPS + 1))
    for key, curve in SHOWN.items():
        if key == "images_per_second":  # W&B keeps what it was told first; steps taken again had another speed
            continue
        assert [row[curve] for row in lines] == [line[key] for line in journal(output)], curve
    (verified,) = [row for row in rows if "loss/total" not in row]
    assert verified["step"] == STEPS
    assert verified["verification/verification/accuracy"] == verification(output)["accuracy_mean"]
    assert len(rows) == STEPS + 1


@needs_wandb
def test_wandb_sessions_are_one_run(output: Path) -> None:
    state = json.loads((output / "wandb_run.json").read_text())
    found = sessions(output)
    assert [folder.name.rsplit("-", 1)[1] for folder in found] == [state["id"]] * 3, "the killed session is gone"
    assert (state["step"], state["unfinished"]) == (STEPS, None)
    resolved = load_config(output / "run.toml")
    for folder in found:
        config = read_config(folder)
        assert config["data"]["num_identities"] == 9
        assert config["head"] == resolved.to_dict()["head"]


@needs_wandb
def test_no_service_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Online without a key: kept for later, and the run is what it would have been."""
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    output = tmp_path / "run"
    config = write_run(
        tmp_path / "run.toml", output=output, faces=make_small_faces(tmp_path / "faces"), steps=6, batch_size=4
    )
    command = pfc("train", config, "--set=log.wandb.project=faces", "--set=evaluation.pairs=[]")
    finished = run_warm(command, cwd=tmp_path)
    assert finished.code == 0, finished.err
    (warning,) = [line for line in finished.err.splitlines() if line.startswith("warning")]
    assert "W&B cannot be reached" in warning
    assert "wandb sync" in warning
    assert [row["step"] for row in read_rows(output)] == list(range(1, 7))


@needs_tensorboard
def test_curves_may_begin_late_and_their_trouble_costs_a_warning(tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = write_run(
        tmp_path / "run.toml", output=output, faces=make_small_faces(tmp_path / "faces"), steps=6, batch_size=4
    )
    assert run_warm(pfc("train", config), cwd=tmp_path).code == 0
    (output / "tensorboard").write_text("in the way")
    command = pfc("train", config, "--set=log.tensorboard=true")
    hindered = run_warm(command, cwd=tmp_path)
    assert hindered.code == 0, hindered.err
    (warning,) = [line for line in hindered.err.splitlines() if line.startswith("warning")]
    assert "no curves for TensorBoard" in warning
    assert str(output / "tensorboard") in warning

    (output / "tensorboard").unlink()
    assert run_warm(command, cwd=tmp_path).code == 0
    scalars = read_scalars(output / "tensorboard")
    assert [step for step, _ in scalars["loss/total"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in scalars["verification/verification/auc"]] == [6]
