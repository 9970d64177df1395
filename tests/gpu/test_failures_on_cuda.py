"""A rank frozen inside an NCCL collective: nothing but the watchdog can end the others. Needs two GPUs."""

import os
import signal
import time
import uuid
from pathlib import Path

import pytest
import torch
from commands import launch, ranks_of, running
from rank_log import RankLog
from small_faces import make_small_faces, write_run

from trainer.own_time import OwnTime

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_others_end_when_a_rank_is_lost(number: int, tmp_path: Path) -> None:
    faces, mark, printed = make_small_faces(tmp_path / "faces"), uuid.uuid4().hex, tmp_path / "printed.txt"
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces, steps=100_000)
    command = launch(2, "train", config, "--set", "run.device=cuda", "--set", "failure.silence_seconds=5")
    log = RankLog(tmp_path / "out" / "logs" / "rank_0000.jsonl")
    with running(command, cwd=tmp_path, mark=mark, printed=printed) as process:
        end = time.monotonic() + 200
        while log.update().step < 5:
            assert process.poll() is None, printed.read_text()
            assert time.monotonic() < end, printed.read_text()
            time.sleep(0.1)
        os.kill(ranks_of(mark)[1], number)
        assert process.wait(timeout=60) == 1
    told = [line for line in printed.read_text().splitlines() if line.startswith("pfc: error: rank 0: rank 1 (")]
    assert len(told) == 1, printed.read_text()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_own_time_is_that_of_the_device_and_not_of_the_queue() -> None:
    device = torch.device("cuda")
    own, a = OwnTime(torch.nn.Identity(), device, time.perf_counter), torch.randn(4096, 4096, device=device)
    own.entered("data")
    own.entered("forward")
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(50):
        a = (a @ a).clamp(-1, 1)
    queued = time.perf_counter() - began
    own.entered("head")
    float(a.sum())
    whole = time.perf_counter() - began
    assert queued < own.take() < 1.5 * whole
