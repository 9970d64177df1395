"""A process that used a loader ends at once and quietly, however it came to its end."""

import importlib.util
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import running
from small_faces import make_small_faces

from data_pipeline import RecordReader, RecordWriter

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 120.0
HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None

BEGINNING = """
import sys, time
from data_pipeline import Augmentation, make_loader
everything = Augmentation(crop=0.5, down_up=0.5, blur=0.5, color=0.5, grayscale=0.5)
def loader_of(records):
    return make_loader(
        records, batch_size=5, decoder={decoder!r}, image_size=48, augmentation=everything, num_threads=2, prefetch=3
    )
loader = loader_of({good!r})
iterator = iter(loader)
batch = next(iterator)
"""


@dataclass(frozen=True)
class End:
    """code, last: exit code and last line of stderr; where last is empty, so is stderr."""

    program: str
    code: int = 0
    last: str = ""
    interrupt: bool = False


ENDS = {
    "in the middle of an epoch": End("next(iterator)"),
    "after sys.exit inside the loop": End("for batch in loader: sys.exit(3)", code=3),
    "with the iterator dropped": End("del iterator, loader"),
    "with a reference cycle": End("loader.itself, loader.way = loader, iterator"),
    "with two loaders": End("other = loader_of({good!r}); pairs = list(zip(iterator, other)); next(iter(other))"),
    "after an exception in the consumer": End(
        "for batch in iterator: raise RuntimeError('of the consumer')", code=1, last="RuntimeError: of the consumer"
    ),
    "after an exception in decoding": End(
        "for batch in loader_of({bad!r}): pass", code=1, last="data_pipeline.errors.BadRecordError: image 11"
    ),
    "after an exception in decoding that was caught": End(
        "try:\n    list(loader_of({bad!r}))\nexcept ValueError:\n    next(iterator)\nelse:\n    sys.exit(9)"
    ),
    "after KeyboardInterrupt": End(
        "print('ready', flush=True)\nwhile True:\n    for batch in loader: time.sleep(0.01)",
        code=-signal.SIGINT,
        last="KeyboardInterrupt",
        interrupt=True,
    ),
}


WITHOUT_DALI = ("in the middle of an epoch", "after an exception in decoding", "after KeyboardInterrupt")
RUNS = [("dali", name) for name in ENDS] + [("cpu", name) for name in WITHOUT_DALI]


@dataclass(frozen=True)
class Ended:
    code: int
    err: str


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A good data set, and the same with an image cut short."""
    folder = tmp_path_factory.mktemp("records")
    good = make_small_faces(folder / "good") / "train.rec"
    (folder / "bad").mkdir()
    with RecordReader(good) as reader, RecordWriter(folder / "bad" / "train.rec") as writer:
        for number, record in enumerate(reader):
            writer.write(record.identity, record.jpeg[:200] if number == 11 else record.jpeg)
    return good, folder / "bad" / "train.rec"


@pytest.fixture(scope="module")
def ended(records: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Ended]:
    """How each program ended; they run side by side."""
    good, bad = map(str, records)
    folder = tmp_path_factory.mktemp("programs")
    results = {}
    with ExitStack() as stack:
        processes: dict[tuple[str, str], subprocess.Popen[str]] = {}
        for number, (decoder, name) in enumerate(RUNS):
            if decoder == "dali" and not HAS_DALI:
                continue
            program = (BEGINNING + ENDS[name].program).format(decoder=decoder, good=good, bad=bad)
            (folder / str(number)).mkdir()
            command = [sys.executable, "-W", "error", "-c", program]
            processes[decoder, name] = stack.enter_context(running(command, cwd=folder / str(number)))
        last_moment = time.monotonic() + DEADLINE_SECONDS
        for run, process in processes.items():
            if ENDS[run[1]].interrupt:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=last_moment - time.monotonic())
            results[run] = Ended(process.returncode, err)
    return results


@pytest.mark.parametrize(("decoder", "name"), RUNS)
def test_a_process_ends_at_once_and_quietly(ended: dict[tuple[str, str], Ended], decoder: str, name: str) -> None:
    if decoder == "dali" and not HAS_DALI:
        pytest.skip("DALI is not installed")
    end, found = ENDS[name], ended[decoder, name]
    assert found.code == end.code, found.err
    # nvImageCodec writes a line of its own for an image that it cannot decode.
    lines = [line for line in found.err.splitlines() if "[ERROR]" not in line or "in decoding" not in name]
    if end.last:
        assert lines[-1].startswith(end.last)
        assert lines[0].startswith("Traceback")
        assert "Exception ignored" not in found.err
    else:
        assert lines == []
