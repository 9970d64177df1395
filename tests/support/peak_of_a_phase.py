"""Peak memory of training steps beyond the float32 centers, in a process of its own.

Run as a script: ``python peak_of_a_phase.py PHASE CLASSES DIM BATCH`` prints a JSON object: bytes of the centers, bytes
of the peak beyond them, and the mode of the last step.
Shape letters: C classes, D embedding size, N batch.
"""

import ctypes
import gc
import json
import sys
from pathlib import Path

import torch
from face_geometry import COLLAPSE, POSITIVE_ANGLE, STEADY, at_angle
from torch.nn.functional import normalize

from partial_fc import CenterSGD, PartialFC

STEPS = 3
BLOCK = 8192


def resident(key: str) -> int:
    """VmRSS or VmHWM, the largest VmRSS since the last reset, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def give_back_and_reset() -> None:
    """Freed memory goes back to the kernel, and the peak is counted from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def steps(head: PartialFC, optimizer: CenterSGD, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Training steps as a trainer takes them."""
    for embeddings, identities in batches:
        head(embeddings.requires_grad_(), identities).backward()
        optimizer.step()
        optimizer.zero_grad()


def measure(collapsed: bool, classes: int, dim: int, batch: int) -> dict[str, float | str]:
    """Centers are drawn block by block, so that their making needs no second copy."""
    phase = COLLAPSE if collapsed else STEADY
    generator = torch.Generator().manual_seed(3)
    settings = {"lr": 1e-3 if collapsed else 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    small = PartialFC(4099, dim, tolerance=1e-3)  # what the first step of a process loads once
    random = [(torch.randn(batch, dim), torch.arange(batch)) for _ in range(2)]
    steps(small, CenterSGD(small, **settings), random)
    del small, random
    give_back_and_reset()
    before = resident("VmRSS")
    head = PartialFC(classes, dim, tolerance=1e-3)
    direction = normalize(torch.randn(dim, generator=generator), dim=0)
    rows = torch.empty(classes, dim)
    for start in range(0, classes, BLOCK):
        block = rows[start : start + BLOCK]
        block.normal_(0.0, (1.0 - phase.lean**2) ** 0.5 * dim**-0.5, generator=generator).add_(phase.lean * direction)
    head.load_centers(rows)
    optimizer = CenterSGD(head, **settings)
    batches = []
    for _ in range(STEPS):
        identities = torch.randint(classes, (batch,), generator=generator)
        noise = torch.randn(batch, dim, generator=generator)
        batches.append((10.0 * at_angle(normalize(rows[identities]), noise, POSITIVE_ANGLE), identities))
    if collapsed:
        batches = [(direction + 0.4 * normalize(embeddings), identities) for embeddings, identities in batches]
    del rows, block
    give_back_and_reset()
    steps(head, optimizer, batches)
    assert head.stats is not None
    centers = classes * dim * 4
    return {"centers": centers, "beyond": resident("VmHWM") - before - centers, "mode": head.stats.mode}


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, *sizes = sys.argv[1:]
    print(json.dumps(measure(name == COLLAPSE.name, *map(int, sizes))))
