"""Rows of host memory that the GPU reads and writes itself."""

import pytest
import torch
from triton_here import DEVICE, INTERPRETED, MARKS, of_cuda_alone

from partial_fc import host_row_kernels_triton
from partial_fc.host_rows import HostRows

pytestmark = MARKS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [5, 512])
def test_rows_are_read_and_written_where_they_are(dim: int, dtype: torch.dtype) -> None:
    table = torch.randn(97, dim, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = table.clone()
    there = table if INTERPRETED else table.pin_memory()
    rows = torch.randperm(97, generator=torch.Generator().manual_seed(1))[:31]
    out = torch.empty(31, dim, dtype=dtype, device=DEVICE)
    host = HostRows(there, DEVICE)
    fetch, put = host.fetch, host.put
    if INTERPRETED:
        fetch = lambda rows, out: host_row_kernels_triton.fetch(there, rows, out)  # noqa: E731
        put = lambda rows, out: host_row_kernels_triton.put(there, rows, out)  # noqa: E731
    fetch(rows.to(DEVICE), out)
    assert torch.equal(out.cpu(), before[rows])
    put(rows.to(DEVICE), out + 1.0)
    expected = before.clone()
    expected[rows] = before[rows] + 1.0
    assert torch.equal(there, expected)
    fetch(rows[:0].to(DEVICE), out[:0])
    put(rows[:0].to(DEVICE), out[:0])
    assert torch.equal(there, expected)


@of_cuda_alone
def test_memory_that_is_not_pinned_goes_by_the_host() -> None:
    table = torch.randn(97, 16)
    rows, out = torch.tensor([5, 3, 90]), torch.empty(3, 16, device="cuda")
    host = HostRows(table.clone(), torch.device("cuda"))
    host.fetch(rows.cuda(), out)
    assert torch.equal(out.cpu(), table[rows])
    host.put(rows.cuda(), out * 2.0)
    assert torch.equal(host.table[rows], table[rows] * 2.0)
