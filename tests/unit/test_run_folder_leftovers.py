"""What a start that was killed, or met a full disk, leaves in a run's folder does not keep the next one out."""

import errno
from pathlib import Path

import pytest

from data_pipeline.pending_file import PendingFile
from trainer.config import Config, config_from
from trainer.errors import ConfigError
from trainer.run_folder import claim_run_folder

pytestmark = pytest.mark.unit


def config(output: Path) -> Config:
    return config_from({"run": {"output": str(output)}, "data": {"records": "a.rec"}, "train": {"steps": 9}}, "test")


def test_killed_while_the_configuration_was_written(tmp_path: Path) -> None:
    """Once it made the folder "not empty and holds no run"."""
    output = tmp_path / "out"
    output.mkdir()
    (output / ".run.toml.4711.abcd.tmp").write_text("[run")
    claim_run_folder(config(output))
    assert [path.name for path in output.iterdir()] == ["run.toml"]
    (output / ".metrics.jsonl.4711.abcd.tmp").write_text("{")
    claim_run_folder(config(output))
    assert [path.name for path in output.iterdir()] == ["run.toml"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".run.toml.4711.abcd.tmp").touch()
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        claim_run_folder(config(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The system names none where a write fails: "No space left on device" was all that a user read."""
    with pytest.raises(OSError, match=r"No space left on device: '.*/name'"), PendingFile(tmp_path / "name"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())
