"""TensorBoard's files from our writer, read by TensorBoard's reader."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="no tensorboard: pip install tensorboard")

from event_reading import read_scalars

from trainer.writers.event_file import EventFile
from trainer.writers.rows import LINE, Row
from trainer.writers.tensorboard import TensorBoardWriter

pytestmark = pytest.mark.unit


@contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    """write() fails behind it, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def points(first: int, last: int) -> list[tuple[int, float]]:
    return [(step, float(step)) for step in range(first, last + 1)]


def test_a_full_disk_leaves_whole_records_and_the_rest_follows(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "events", purge_step=0)
    with largest_file(1000):
        for step in range(1, 51):
            file.append_scalars({"loss": float(step)}, step=step, wall_time=1.7e9)
        assert file.problem is not None
        written = read_scalars(tmp_path / "events")["loss"]
        assert 0 < len(written) < 50
        assert written == points(1, len(written))
    file.append_scalars({"loss": 51.0}, step=51, wall_time=1.7e9)
    assert file.problem is None
    assert read_scalars(tmp_path / "events")["loss"] == points(1, 51)


def test_a_run_that_went_back_takes_its_steps_back(tmp_path: Path) -> None:
    """Steps 6 to 9 of the first process were lost with it; the second one, from step 5, has other values."""
    for begin, end, value in ((0, 9, 1.0), (5, 12, 2.0)):
        writer = TensorBoardWriter(tmp_path, step=begin, configuration="a = 1")
        for step in range(begin + 1, end + 1):
            writer.write(Row(step, LINE, 1.7e9, {"loss": value}))
    expected = [(step, 1.0) for step in range(1, 6)] + [(step, 2.0) for step in range(6, 13)]
    assert read_scalars(tmp_path / "tensorboard")["loss"] == expected


def test_a_run_that_begins_again_repeats_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        writer = TensorBoardWriter(tmp_path, step=0, configuration="a = 1")
        writer.write(Row(0, "lfw", 1.7e9, {"verification/lfw/accuracy": 0.5}))
    assert read_scalars(tmp_path / "tensorboard")["verification/lfw/accuracy"] == [(0, 0.5)]
