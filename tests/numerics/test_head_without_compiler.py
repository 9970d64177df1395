"""PyTorch's kernels carry the whole head where none were compiled: the same steps, the same centers."""

from types import ModuleType

import pytest
import torch
from face_geometry import COLLAPSE, STEADY, WEAK, Faces, Phase

from partial_fc import CenterSGD, PartialFC, kernels_native, kernels_torch, native_library

pytestmark = pytest.mark.numerics

CLASSES, DIM, BATCH, STEPS = 2203, 290, 32, 8


def trained(phase: Phase) -> tuple[PartialFC, list[str]]:
    faces = Faces(phase, CLASSES, DIM, seed=1)
    head = PartialFC(CLASSES, DIM)
    head.load_centers(faces.centers)
    optimizer = CenterSGD(head, lr=1e-3 if phase is COLLAPSE else 0.1)
    modes = []
    for _ in range(STEPS):
        embeddings, identities = faces.batch(faces.centers, BATCH)
        head(embeddings.requires_grad_(), identities).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert head.stats is not None
        modes.append(head.stats.mode)
    return head, modes


@pytest.mark.parametrize("phase", [STEADY, WEAK, COLLAPSE], ids=lambda phase: phase.name)
def test_same_training_without_the_library(phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, modes = trained(phase)
    assert compiled.rows is not None
    assert compiled.rows.kernels is kernels_native
    assert set(modes) == {"dense" if phase is COLLAPSE else "screened"}
    monkeypatch.setattr(native_library, "available", lambda: False)
    plain, plain_modes = trained(phase)
    assert plain.rows is not None
    kernels: ModuleType = plain.rows.kernels
    assert kernels is kernels_torch
    assert plain_modes == modes
    moved = (compiled.centers - Faces(phase, CLASSES, DIM, seed=1).centers).norm()
    assert (compiled.centers - plain.centers).norm() < 1e-3 * moved
    assert torch.isfinite(plain.centers).all()
