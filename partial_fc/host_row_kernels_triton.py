"""What :mod:`partial_fc.host_rows` does on CUDA.

Shape letters: R rows of a table in pinned host memory, A rows asked for, D embedding size.
"""

from torch import Tensor

from partial_fc import triton_host_rows
from partial_fc.triton_width import row_width


def fetch(table: Tensor, rows: Tensor, out: Tensor) -> None:
    """``rows`` [A] of the table [R, D] into ``out`` [A, D]."""
    if len(rows):
        triton_host_rows.fetch_program[(len(rows),)](table, rows, out, table.shape[1], **row_width(table.shape[1]))


def put(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """The counterpart; the host sees it when the stream has been waited for."""
    if len(rows):
        triton_host_rows.put_program[(len(rows),)](table, rows, values, table.shape[1], **row_width(table.shape[1]))
