"""Training past bad images, and verifying a data set, as a user types it."""

import json
import os
import shutil
import signal
import time
import urllib.request
from pathlib import Path

import pytest
from commands import pfc, run_warm, running, torchrun
from small_faces import make_small_faces, write_run

from data_pipeline import RecordReader, RecordWriter

pytestmark = pytest.mark.integration

BAD = {3: b"\xff\xd8 no JPEG", 10: b"", 20: b""}  # empty: cut in half below


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """63 images, of which one is no image and two are cut."""
    sound = make_small_faces(tmp_path_factory.mktemp("faces") / "small")
    folder = sound.with_name("damaged")
    shutil.copytree(sound, folder)
    with RecordReader(sound / "train.rec") as reader, RecordWriter(folder / "train.rec") as writer:
        for number, record in enumerate(reader):
            bad = number in BAD
            writer.write(record.identity, (BAD[number] or record.jpeg[:900]) if bad else record.jpeg)
    return folder


def test_a_run_stopped_by_a_bad_image_goes_on_past_it(damaged: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=damaged)
    stopped = run_warm(pfc("train", config), cwd=tmp_path)
    assert stopped.code == 2, stopped.err
    (line,) = stopped.error_lines
    assert "train.rec, record " in line
    assert "pfc data verify" in line
    assert 'bad_images = "skip"' in line
    finished = run_warm(pfc("train", config, "--set", "data.bad_images=skip"), cwd=tmp_path)
    assert finished.code == 0, finished.err
    journal = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    counts = journal[-1]["skipped_records"]
    assert counts.keys() == {"undecodable", "truncated"}
    assert counts["truncated"] >= 4  # 24 steps of 8 are three epochs of 63, less what the epochs' ends leave out
    log = [json.loads(line) for line in (tmp_path / "out" / "logs" / "rank_0000.jsonl").read_text().splitlines()]
    told = {entry["reason"]: entry for entry in log if entry["event"] == "skipped_image"}
    assert told.keys() == counts.keys()
    assert all("train.rec, record " in entry["image"] and " at byte " in entry["image"] for entry in told.values())
    assert len([entry for entry in log if entry["event"] == "skipped_image"]) == 2


def test_the_counter_is_exported_while_two_ranks_train(damaged: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=damaged, steps=20_000)
    port = 20_000 + os.getpid() % 20_000
    sets = ("--set", "data.bad_images=skip", "--set", f"metrics.port={port}", "--set", "checkpoint.every_steps=100000")
    deadline = time.monotonic() + 90
    with running(torchrun(2, "train", config, *sets), cwd=tmp_path):
        counts = [0.0, 0.0]
        while min(counts) < 2:
            assert time.monotonic() < deadline, "the counters do not move"
            time.sleep(0.3)
            counts = [exported(port, rank) for rank in range(2)]


def exported(base: int, rank: int) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{base + rank}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    start = f'pfc_data_skipped_records_total{{job="out",rank="{rank}",reason="truncated"}} '
    return next(float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))


def test_a_run_goes_past_a_damaged_record_and_a_shard_that_ends_early(damaged: Path, tmp_path: Path) -> None:
    faces = Path(shutil.copytree(damaged, tmp_path / "faces"))
    with RecordReader(faces / "train.rec") as reader:
        offsets = reader.shards[0].offsets.at(slice(None)).tolist()
    with (faces / "train.rec").open("r+b") as stream:
        stream.seek(offsets[30])
        stream.write(bytes(4))
        stream.truncate(offsets[60] + 50)
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    stopped = run_warm(pfc("train", config), cwd=tmp_path)
    assert (stopped.code, len(stopped.error_lines)) == (2, 1), stopped.err
    finished = run_warm(pfc("train", config, "--set", "data.bad_images=skip"), cwd=tmp_path)
    assert finished.code == 0, finished.err
    last = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["skipped_records"].keys() == {"truncated", "undecodable", "bad_record"}


def test_too_many_bad_images_end_the_run(damaged: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=damaged)
    sets = ("--set", "data.bad_images=skip", "--set", "data.max_bad_images=0.04")
    finished = run_warm(pfc("train", config, *sets), cwd=tmp_path)
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.err
    assert "3 bad images (2 truncated, 1 undecodable) are more than max_bad_images allows (2 of 63)" in finished.err


def test_verify_says_what_and_where(damaged: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    finished = run_warm(pfc("data", "verify", damaged, "--report", report, "--workers", "2"), cwd=tmp_path)
    assert finished.code == 1, finished.err
    assert finished.err == ""
    entries = json.loads(report.read_text())
    assert entries["counts"] == {"truncated": 2, "undecodable": 1}
    assert [entry["key"] for entry in entries["bad"]] == [4, 11, 21]
    assert run_warm(pfc("data", "verify", tmp_path / "absent"), cwd=tmp_path).code == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_verify_leaves_no_process_and_no_report(tmp_path: Path, how: signal.Signals) -> None:
    make_large(tmp_path / "train.rec")
    command = pfc("data", "verify", tmp_path / "train.rec", "--workers", "2", "--report", tmp_path / "report.json")
    with running(command, cwd=tmp_path) as process:
        children = wait_for_children(process.pid)
        time.sleep(0.7)
        assert process.poll() is None, "finished before it could be interrupted"
        process.send_signal(how)
        process.wait(timeout=20)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
            assert time.monotonic() < deadline, "a worker outlived the command"
            time.sleep(0.05)
        if how == signal.SIGINT:
            assert process.returncode == 1
    assert not [path for path in tmp_path.iterdir() if "report" in path.name]


def make_large(path: Path) -> None:
    """More than two processes check in some seconds: noise is slow to decode."""
    import io

    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
    with RecordWriter(path) as writer:
        for number in range(400):
            writer.write(number, buffer.getvalue())


def wait_for_children(parent: int) -> list[int]:
    """The two workers: spawned processes carry their role in their command line."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        workers = [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        if len(workers) == 2:
            return workers
        time.sleep(0.05)
    raise AssertionError("no two workers appeared")
