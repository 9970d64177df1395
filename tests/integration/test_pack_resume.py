"""A pack that is killed again and again ends in the bytes of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import MARK, environment, kill_marked, marked, pfc, running
from PIL import Image

from data_pipeline import DataError, RecordReader
from data_pipeline.pack import PackOptions, pack_images
from data_pipeline.record_set import UNFINISHED, find_records
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedWriter
from trainer.cli import main

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60.0
MOST_KILLS = 6
# Some milliseconds an image, so that a fast machine is not done before it is killed.
SCRIPT = """
import sys, time
from pathlib import Path
from data_pipeline.pack import PackOptions, pack_images
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedWriter

write = ShardedWriter.write

def write_slowly(*arguments):
    time.sleep(0.005)
    write(*arguments)

ShardedWriter.write = write_slowly
if __name__ == "__main__":
    source, output, workers, shards = sys.argv[1:]
    options = PackOptions(image_size=48, skip_bad=True, cut=ShardCut(shards=int(shards)))
    pack_images(Path(source), Path(output), options, resume=True, workers=int(workers), checkpoint_seconds=0.01)
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of 12 identities, some of them broken, and two identities without any."""
    folder = tmp_path_factory.mktemp("source") / "faces"
    generator = np.random.default_rng(0)
    for identity in range(12):
        (folder / f"{identity:02}").mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 256, (90, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{identity:02}" / f"{number}.png")
    (folder / "03" / "7.png").write_bytes(b"broken")
    (folder / "07" / "0.jpg").write_bytes(b"")
    (folder / "11a").mkdir()
    (folder / "09a").mkdir()
    return folder


def contents(folder: Path, but: str = "") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != but}


def options(shards: int) -> PackOptions:
    return PackOptions(image_size=48, skip_bad=True, cut=ShardCut(shards=shards))


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (3, 2)])
def test_killed_at_random_moments(faces: Path, tmp_path: Path, shards: int, workers: int) -> None:
    alone = pack_images(faces, tmp_path / "alone", options(shards))
    script, errors, output, mark = tmp_path / "pack.py", tmp_path / "errors", tmp_path / "out", uuid.uuid4().hex
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(faces), str(output), str(workers), str(shards)]
    dice, kills, journals = random.Random(shards), 0, set()
    try:
        while True:
            with errors.open("w") as stream:
                process = subprocess.Popen(command, env=environment() | {MARK: mark}, stderr=stream)
            end = time.monotonic() + DEADLINE_SECONDS
            journal = output / UNFINISHED / "journal.json"
            before = journal.stat().st_mtime_ns if journal.exists() else 0
            # Killed from its first saved progress on, and some times before.
            patient = dice.random() < 0.8
            while (
                process.poll() is None and patient and before == (journal.stat().st_mtime_ns if journal.exists() else 0)
            ):
                assert time.monotonic() < end
                time.sleep(0.005)
            try:
                assert (
                    process.wait(
                        DEADLINE_SECONDS if kills == MOST_KILLS else dice.uniform(0.0, 0.2 if patient else 0.8)
                    )
                    == 0
                ), errors.read_text()
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            kills += 1
            try:
                find_records(output)
            except DataError:
                pass
            else:  # it had got its last name
                assert contents(tmp_path / "alone").items() <= contents(output, but=UNFINISHED).items()
                if not (output / UNFINISHED / "publishing.json").exists():
                    break
            if journal.exists():
                journals.add(journal.read_text())
            while marked(mark):
                assert time.monotonic() < end, "workers outlive the process that they work for"
                time.sleep(0.01)
    finally:
        kill_marked(mark)
    assert kills >= 2
    assert journals, "it was killed in the middle"
    assert contents(output, but=UNFINISHED) == contents(tmp_path / "alone")
    assert alone.images == len(RecordReader(find_records(output))) == 239
    assert len(alone.skipped) == 4


def interrupted(faces: Path, output: Path) -> list[str]:
    """A pack that lies unfinished in ``output``, as after kill -9; the command that began it."""
    command = pfc("data", "pack", faces, "--output", output, "--image-size", "48", "--skip-bad")
    with running(command, cwd=faces.parent) as process:
        wait_for(output / UNFINISHED / "0.rec", process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert "interrupted" in err
    assert err.strip().splitlines()[-1].endswith("run the same command with --resume to continue")
    return command


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not path.exists():
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < end
        time.sleep(0.002)


def test_ctrl_c_then_resume(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack_images(faces, tmp_path / "alone", PackOptions(image_size=48, skip_bad=True))
    output = tmp_path / "out"
    command = interrupted(faces, output)
    assert [path.name for path in output.iterdir()] == [UNFINISHED]
    saved = (output / UNFINISHED / "journal.json").exists()
    if saved:  # not when it was interrupted in its first five seconds
        assert main([*command[3:], "--resume", "--quality", "90"]) == 2
        assert "an unfinished pack of another kind" in capsys.readouterr().err
    assert main([*command[3:], "--resume", "--workers", "2"]) == 0
    assert contents(output) == contents(tmp_path / "alone")
    capsys.readouterr()
    assert main([*command[3:], "--resume"]) == 2
    assert "train.rec exists" in capsys.readouterr().err


class StopError(Exception):
    pass


def stop_in_the_middle(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that breaks off at its fortieth image, all progress saved."""
    original, calls = ShardedWriter.write, iter(range(1, 1000))

    def write(self: ShardedWriter, identity: int, jpeg: bytes, item: int | None = None) -> None:
        if next(calls) == 40:
            raise StopError
        original(self, identity, jpeg, item)

    with monkeypatch.context() as patch:
        patch.setattr(ShardedWriter, "write", write)
        with pytest.raises(StopError):
            pack_images(source, output, options(1), checkpoint_seconds=0)


def add(source: Path) -> None:
    (source / "a" / "x.png").write_bytes((source / "a" / "0.png").read_bytes())


def remove(source: Path) -> None:
    (source / "a" / "0.png").unlink()


def replace(source: Path) -> None:
    content = (source / "b" / "29.png").read_bytes()
    (source / "b" / "29.png").unlink()
    (source / "b" / "29.png").write_bytes(content)  # as long, but newer


def rename(source: Path) -> None:
    (source / "b").rename(source / "c")


def change_nothing(source: Path) -> None:
    (source / "b" / "notes.txt").write_text("no image")


@pytest.mark.parametrize("change", [add, remove, replace, rename, change_nothing])
def test_a_source_that_changed_is_refused(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    source, output = tmp_path / "faces", tmp_path / "out"
    for each in ("a", "b"):
        (source / each).mkdir(parents=True)
        for number in range(30):
            os.link(faces / "00" / f"{number % 20}.png", source / each / f"{number}.png")
    stop_in_the_middle(source, output, monkeypatch)
    change(source)
    if change is change_nothing:
        assert pack_images(source, output, options(1), resume=True).images == 60
        return
    with pytest.raises(DataError, match="has changed since the pack that is to be resumed"):
        pack_images(source, output, options(1), resume=True)
    assert (output / UNFINISHED / "journal.json").exists(), "what was done is kept"
    assert pack_images(source, output, options(1)).images in (59, 60, 61), "without --resume it starts again"
    assert not (output / UNFINISHED).exists()


def test_the_middle_is_not_read_again(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = tmp_path / "faces", tmp_path / "out"
    (source / "a").mkdir(parents=True)
    for number in range(60):
        os.link(faces / "00" / f"{number % 20}.png", source / "a" / f"{number:02}.png")
    stop_in_the_middle(source, output, monkeypatch)
    opened: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or original(path))
    pack_images(source, output, options(1), resume=True)
    assert [path.name for path in opened if path.suffix == ".png"] == [f"{number:02}.png" for number in range(39, 60)]
