"""A data set gets its names as a whole: killed at any moment, the output never passes for one that it is not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import DataError, Properties, RecordReader, write_properties
from data_pipeline.draft import NOISE, Draft, refuse_overlap
from data_pipeline.record_set import find_records
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedWriter

pytestmark = pytest.mark.unit


def make(output: Path, identity: int, shards: int, **options: bool) -> None:
    """A data set of 6 images of one identity."""
    with Draft(output, **options) as draft:
        with ShardedWriter(draft.folder, cut=ShardCut(shards=shards), total=6) as writer:
            for _ in range(6):
                writer.write(identity, b"jpeg")
        write_properties(draft.folder, Properties(identity + 1, 8, 8))
        draft.publish(writer.names() | {"property": "property"})


def found(output: Path) -> set[int] | None:
    """The identities that a reader finds, None where it refuses."""
    try:
        with RecordReader(find_records(output)) as reader:
            assert len(reader) == 6
            assert reader.num_identities == int(reader.identities.max()) + 1, "the property file is of this data set"
            return set(reader.identities.tolist())
    except DataError:
        return None


def killed_after(steps: int, output: Path, identity: int, shards: int) -> bool:
    """Make a data set in a process that dies before its step number ``steps`` (a rename or removal of a file)."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = steps

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return original(*args, **options)

        return step

    for name in ("replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))
    try:
        make(output, identity, shards, overwrite=True)
    except BaseException:
        os._exit(0)  # the test sees a data set that is not there
    os._exit(0)


@pytest.fixture(autouse=True)
def without_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killing a process loses nothing that it has written: waiting for the disk would only take time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize(("before", "after"), [(None, 2), (1, 1), (2, 2), (3, 2), (2, 1)])
def test_killed_at_any_step(tmp_path: Path, before: int | None, after: int) -> None:
    seen: list[set[int] | None] = []
    for steps in range(100):
        output = tmp_path / str(steps)
        if before is not None:
            make(output, 7, before)
            (output / NOISE).write_text("of the old data set")
        killed = killed_after(steps, output, 9, after)
        seen.append(found(output))
        if not killed:
            assert seen[-1] == {9}
            break
        # The next command removes what was a draft, or completes what was getting its names; then makes its own.
        make(output, 9, after, overwrite=True)
        assert found(output) == {9}
        assert sorted(path.name for path in output.iterdir()) == sorted(
            {"property", *(path.name for path in output.glob("train*"))} | ({"dali.idx"} if after > 1 else set())
        )
    states = [state for place, state in enumerate(seen) if place == 0 or state != seen[place - 1]]
    # First what was there, then nothing that can be read, then the new data set: never a mixture.
    assert states == ([None, {9}] if before is None else [{7}, None, {9}])
    assert len(seen) > 3 * after


def test_a_publication_is_completed_by_whoever_comes_next(tmp_path: Path) -> None:
    completed = []
    for steps in range(100):
        output = tmp_path / str(steps)
        if not killed_after(steps, output, 9, 2):
            break
        try:
            make(output, 5, 3)
            completed.append(found(output) == {9})
        except DataError as error:
            completed.append("train-00000-of-00002.rec exists" in str(error) and found(output) == {9})
    assert any(completed)
    assert not all(completed), "a mere draft is no publication"


def test_one_command_at_a_time(tmp_path: Path) -> None:
    with Draft(tmp_path / "out"), pytest.raises(DataError, match="another command is writing into"):
        make(tmp_path / "out", 1, 1)
    assert not (tmp_path / "out").exists()


def test_what_else_lies_there(tmp_path: Path) -> None:
    (tmp_path / "verification.bin").write_bytes(b"mine")
    (tmp_path / "val.rec").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"val\.rec, which would be read as part of the data set"):
        make(tmp_path, 1, 1, overwrite=True)
    (tmp_path / "val.rec").unlink()
    make(tmp_path, 1, 2)
    assert (tmp_path / "verification.bin").read_bytes() == b"mine"
    with pytest.raises(DataError, match=r"train-00000-of-00002\.rec exists: .*--overwrite"):
        make(tmp_path, 2, 1)
    make(tmp_path, 2, 1, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "property", "train.idx", "train.rec", "verification.bin",
    ]  # fmt: skip


def test_input_and_output_apart(tmp_path: Path) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    (source / "train.rec").touch()
    (tmp_path / "link").symlink_to(source)
    for output in (source, tmp_path / "link", source / "deep" / "er", tmp_path / "link" / "x"):
        with pytest.raises(DataError, match="choose an"):
            refuse_overlap(output, [source])
    with pytest.raises(DataError, match="choose another output"):
        refuse_overlap(source, [source / "train.rec"])
    refuse_overlap(tmp_path, [source])
    refuse_overlap(tmp_path / "faces2", [source])
