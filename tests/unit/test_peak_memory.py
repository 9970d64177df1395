"""Peak memory is counted anew after each reset, also for memory that was freed before."""

import sys

import pytest
import torch

from trainer.bench.peak_memory import peak_bytes, reset_peak

pytestmark = [pytest.mark.unit, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MIB = 1 << 20


def allocate(count: int) -> None:
    """``count`` MiB in pieces small enough for malloc to keep when freed."""
    pieces = [torch.ones(MIB // 8) for _ in range(2 * count)]
    assert len(pieces) == 2 * count


def test_peak_after_reset() -> None:
    allocate(64)
    grown = []
    for count in (128, 32):
        assert reset_peak()
        before = peak_bytes()
        allocate(count)
        grown.append((peak_bytes() - before) / MIB)
    assert grown == [pytest.approx(128, rel=0.15), pytest.approx(32, rel=0.15)]
