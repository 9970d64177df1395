"""A screened step with Triton's kernels whose centers lie in host memory."""

import pytest
import torch
from triton_here import DEVICE, MARKS

from partial_fc import CenterSGD, PartialFC, center_table, kernels_triton, screened_pass
from partial_fc.center_module import CenterMemory

pytestmark = MARKS

CLASSES, DIM, BATCH = 2100, 64, 16


def trained(memory: CenterMemory) -> tuple[torch.Tensor, list[str], list[int]]:
    """Centers after three steps; how each went, and its active pairs."""
    draw = torch.Generator().manual_seed(2)
    centers = torch.nn.functional.normalize(torch.randn(CLASSES, DIM, generator=draw))
    head = PartialFC(CLASSES, DIM, device=DEVICE, center_memory=memory)
    head.load_centers(centers.to(DEVICE))
    optimizer = CenterSGD(head, lr=0.1)
    modes, active = [], []
    for _ in range(3):
        identities = torch.randint(CLASSES, (BATCH,), generator=draw)
        direction = torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=draw))
        embeddings = (0.62 * centers[identities] + 0.78 * direction).to(DEVICE).requires_grad_()
        head(embeddings, identities.to(DEVICE)).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert head.stats is not None
        modes.append(head.stats.mode)
        active.append(head.stats.active_pairs)
    return head.read_centers(0, CLASSES).cpu(), modes, active


def test_it_goes_half_by_half_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(center_table, "kernels_for", lambda device: kernels_triton)
    seen: list[int] = []
    original = kernels_triton.screen_tile

    def watched(tables: object, start: int, count: int, *rest: object) -> object:
        seen.append(count)
        return original(tables, start, count, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(kernels_triton, "screen_tile", watched)
    expected = trained("device")
    assert set(seen) == {CLASSES}
    whole = trained("host")
    assert set(seen) == {CLASSES}, "all rows that are scored find room"
    seen.clear()
    monkeypatch.setattr(screened_pass, "MOST_TILE", 8)
    halves = trained("host")
    assert min(seen) < CLASSES // 2
    for centers, modes, active in (whole, halves):
        assert modes == expected[1] == ["screened"] * 3
        assert active == expected[2]
        torch.testing.assert_close(centers, expected[0], rtol=1e-5, atol=1e-6)
