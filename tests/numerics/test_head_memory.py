"""No N x C matrix and no second C x D float32 one; peak memory beyond the centers, steady and collapsed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import peak_of_a_phase
import pytest
import torch
from allocations import Allocation, Allocations
from face_geometry import COLLAPSE, STEADY, Faces, Phase
from head_accuracy import expect_dense, expect_screened

import partial_fc
from partial_fc import CenterSGD, PartialFC

pytestmark = pytest.mark.numerics

CLASSES, DIM, BATCH = 30_011, 320, 384  # tiles of 8,192 classes are smaller than any of the matrices looked for
LARGE = 300_007  # x 256: 293 MiB of centers, against which buffers of a fixed size are small


@pytest.mark.parametrize("phase", [STEADY, COLLAPSE], ids=lambda phase: phase.name)
def test_no_operation_allocates_a_matrix_of_all_pairs_or_of_all_centers(phase: Phase) -> None:
    """Of C x D elements only an int8 copy and the momentum: reserved once, it takes memory where rows have some."""
    faces = Faces(phase, CLASSES, DIM)
    head = PartialFC(CLASSES, DIM, tolerance=1e-3)
    head.load_centers(faces.centers)
    optimizer = CenterSGD(head, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    batches = [faces.batch(faces.centers, BATCH) for _ in range(3)]
    with Allocations(smallest=CLASSES * min(DIM, BATCH)) as allocations:
        for embeddings, identities in batches:
            head(embeddings.requires_grad_(), identities).backward()
            optimizer.step()
            optimizer.zero_grad()
    (expect_dense if phase is COLLAPSE else expect_screened)(head.stats, phase.name)
    unexpected = [found for found in allocations.found if not is_int8_copy(found)]
    assert len(unexpected) <= 1, unexpected
    assert all(found.elements < CLASSES * BATCH for found in unexpected), unexpected


def is_int8_copy(found: Allocation) -> bool:
    return found.dtype == torch.int8 and found.elements < CLASSES * (DIM + 32)


def test_the_recorder_sees_what_it_should() -> None:
    """A new matrix counts, also one made by an out-of-place step; views and in-place results do not."""
    base = torch.ones(30, 10)
    with Allocations(smallest=300) as allocations:
        base.view(10, 30).mul_(2.0)[1:].add_(1.0)
        torch.mm(base, torch.ones(10, 9))
        torch.mul(base, 2.0, out=base)
    assert not allocations.found
    with Allocations(smallest=300) as allocations:
        torch.autograd.backward((base @ torch.ones(10, 11, requires_grad=True)).sum())
    assert {found.shape for found in allocations.found} >= {(30, 11)}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("phase", "limit"), [(STEADY, 0.5), (COLLAPSE, 1.5)], ids=["steady", "collapse"])
def test_peak_beyond_the_centers(phase: Phase, limit: float) -> None:
    """Everything counts: gradient, momentum, int8 copy, buffers."""
    measured = in_a_process_of_its_own(phase, LARGE, 256, 64)
    assert measured["mode"] == ("dense" if phase is COLLAPSE else "screened"), measured
    assert measured["beyond"] <= limit * measured["centers"], measured["beyond"] / measured["centers"]


def in_a_process_of_its_own(phase: Phase, *sizes: int) -> dict[str, Any]:
    script = Path(peak_of_a_phase.__file__)
    path = os.pathsep.join([str(Path(partial_fc.__file__).parents[1]), str(script.parent)])
    done = subprocess.run(
        [sys.executable, str(script), phase.name, *map(str, sizes)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured
