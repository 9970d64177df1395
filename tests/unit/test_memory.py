"""Freed buffers are reused without new page faults; what will not be asked for again is given back."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

COUNT_FAULTS = """
import resource, sys, torch
from trainer.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
# As in training: a forward pass keeps its activations, the backward pass frees them, the next step asks again.
images = torch.randn(64, 3, 128, 128)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3), torch.nn.ReLU())
def step():
    network(images).sum().backward()
for _ in range(2):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, mode], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_kept_memory_is_not_faulted_in_again() -> None:
    assert faults("keep") < faults("as usual") / 4


GIVE_BACK = """
import torch
from trainer.bench.peak_memory import resident_bytes
from trainer.memory import give_back_freed_memory, keep_freed_memory
assert keep_freed_memory()
read, kept = torch.ones(256 << 20, dtype=torch.uint8), torch.ones(1 << 20, dtype=torch.uint8)  # the second lies above
del read
before = resident_bytes()
assert give_back_freed_memory()
print(before - resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_what_a_checkpoint_was_read_into_is_given_back() -> None:
    """It stayed for good: a run of a million classes that was continued on one rank held 2 GiB more than before."""
    done = subprocess.run([sys.executable, "-c", GIVE_BACK], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) > 200 << 20


MOMENTUM_IN_A_HOLE = """
import torch
from partial_fc import CenterSGD, PartialFC
from trainer.bench.peak_memory import resident_bytes
from trainer.memory import keep_freed_memory
assert keep_freed_memory()
head = PartialFC(60_000, 256)
optimizer = CenterSGD(head)
activations, kept = torch.ones(96 << 20, dtype=torch.uint8), torch.ones(1 << 20, dtype=torch.uint8)
del activations
before = resident_bytes()
head(torch.randn(8, 256, requires_grad=True), torch.arange(8)).backward()
optimizer.step()
print(before - resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_momentum_reserved_where_activations_were_is_no_memory_before_it_is_used() -> None:
    """Room for all rows, 61 MB here, lay in memory from the first step on, and activations took as much again."""
    done = subprocess.run(
        [sys.executable, "-c", MOMENTUM_IN_A_HOLE], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) > 20 << 20
