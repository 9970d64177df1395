"""Products of float32 tiles on a GPU's tensor cores, with what bfloat16 loses put back.

A number x is high + low + rest, high the nearest bfloat16 of x, low that of x - high, |rest| <= 2^-18 |x|. With both
factors split, x y = high high + high low + low high, to within 2^-16 of |x y|: three products whose terms are exact and
are added up in float32. Over D terms those errors cancel as those of float32 do, so a cosine errs by some 1e-7, no more
than by a float32 product; a GPU does the three several times faster than that one. All three are one product of
[high, high, low] with [high, low, high].
Shape letters: N global batch, T rows of a tile, D embedding size.
"""

from types import ModuleType

import torch
import triton
from torch import Tensor

from partial_fc import triton_split
from partial_fc.tiled import NORM_FLOOR, Tile, TileBatch
from partial_fc.triton_width import row_width
from partial_fc.workspace import Workspace

ROWS, COLUMNS = 16, 256  # that a program splits


class SplitBatch(TileBatch):
    """As :class:`TileBatch`, for float32; a tile's ``unit`` is [T, 3 D] bfloat16, [high, high, low]."""

    def __init__(self, unit: Tensor, workspace: Workspace) -> None:
        self.unit = unit
        self._workspace = workspace
        high = unit.bfloat16()
        low = (unit - high).bfloat16()
        self._stacked = torch.cat([high, low, high])  # [3 N, D]
        self._transposed = torch.cat([high, low, high], dim=1).T.contiguous()  # [3 D, N]

    def room(self, workspace: Workspace, name: str, rows: int) -> Tensor:
        """[rows, 3 D] bfloat16."""
        return workspace.take(name, rows, 3 * self.unit.shape[1], dtype=torch.bfloat16)

    def fill(
        self, kernels: ModuleType, table: Tensor, rows: Tensor | None, start: int, unit: Tensor, inverse: Tensor
    ) -> None:
        """See :meth:`TileBatch.fill`."""
        dim = self.unit.shape[1]
        if len(unit):
            triton_split.unit_program[(len(unit),)](
                table, rows, start, NORM_FLOOR, unit, inverse, dim, **row_width(dim)
            )  # fmt: skip

    def cosines(self, tile: Tile) -> Tensor:
        """See :meth:`Tile.cosines`."""
        return _product(tile.unit, self._transposed, tile.room)

    def add_gradients(
        self, tile: Tile, coefficients: Tensor, unit_gradient: Tensor, center_gradient: Tensor | None
    ) -> None:
        """See :meth:`TileBatch.add_gradients`."""
        parts = self._split(coefficients)
        batch, dim = self.unit.shape
        of_samples = self._workspace.take("split sample gradient", batch, dim)
        for mine, theirs in ((0, 0), (0, 2), (2, 0)):
            mine_part = parts[:, mine * batch : (mine + 1) * batch]
            unit_gradient += _product(mine_part.T, tile.unit[:, theirs * dim : (theirs + 1) * dim], of_samples)
        if center_gradient is not None:
            self._of_centers(tile, parts, center_gradient)

    def center_gradient(self, tile: Tile, coefficients: Tensor, out: Tensor) -> Tensor:
        """See :meth:`Tile.center_gradient`."""
        return self._of_centers(tile, self._split(coefficients), out)

    def _split(self, coefficients: Tensor) -> Tensor:
        """[T, 3 N], valid until the next."""
        count, batch = coefficients.shape
        parts = self._workspace.take("split coefficients", count, 3 * batch, dtype=torch.bfloat16)
        if count and batch:
            grid = (triton.cdiv(count, ROWS), triton.cdiv(batch, COLUMNS))
            triton_split.split_program[grid](
                coefficients, parts, count, batch, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4
            )  # fmt: skip
        return parts

    def _of_centers(self, tile: Tile, parts: Tensor, out: Tensor) -> Tensor:
        _product(parts, self._stacked, out)
        if len(out):
            dim = self.unit.shape[1]
            triton_split.through_program[(len(out),)](out, tile.unit, tile.inverse, dim, **row_width(dim))
        return out


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Of bfloat16, added up in float32 ``out``."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    return torch.mm(left.float(), right.float(), out=out)  # in Triton's interpreter
