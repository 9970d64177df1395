"""Whose failure an error is, what is said of it, and with which exit code a process ends."""

import errno

import pytest
import torch
import torch.distributed as dist

from data_pipeline import DataError
from trainer.errors import ConfigError, ExitCode, PeerFailedError
from trainer.failure import Failure, exit_code, is_of_others, is_out_of_memory, reason

pytestmark = pytest.mark.unit

GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:14725. GLHF!"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(GLOO), True),
        (RuntimeError(f"Got the following error when running the callback: RuntimeError: {GLOO}"), True),
        (dist.DistBackendError("NCCL communicator was aborted on rank 1"), True),
        (dist.DistNetworkError("failed to connect"), True),
        (PeerFailedError("checkpoint: another rank failed; see its log"), True),
        (PeerFailedError("rank 1 failed: disk full", ExitCode.FAILURE), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), False),
        (ConfigError("no"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_whose_failure(error: Exception, expected: bool) -> None:
    assert is_of_others(error) is expected


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("data.records: missing"), 2, "data.records: missing"),
        (DataError("train.rec: cut"), 2, "train.rec: cut"),
        (ValueError("wrong\nsecond line"), 1, "ValueError: wrong"),
        (PeerFailedError("rank 1 failed", ExitCode.BAD_INPUT), 2, "rank 1 failed"),
        (PeerFailedError("another rank failed"), 1, "another rank failed"),
        (MemoryError(), 1, "out of memory: lower data.batch_size or use more ranks ()"),
        (KeyError(), 1, "KeyError: "),
    ],
)
def test_exit_code_and_reason(error: Exception, code: int, said: str) -> None:
    assert exit_code(error) == code
    assert reason(error) == said


def test_memory_that_really_runs_out_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("something else"))


def test_advice_fits_the_kind_of_failure() -> None:
    assert "continues from the newest checkpoint" in str(Failure("lost").as_error())
    assert str(Failure("bad", ExitCode.BAD_INPUT).as_error()) == "bad"
    assert Failure("asked", ExitCode.STOPPED).as_error().code == ExitCode.STOPPED
