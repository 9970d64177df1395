"""Gallery rows as int8 beside their float32, so that a product of integers tells which scores are worth computing.

Shapes: G rows of a tile, D embedding size, W code width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.kernels import kernels_for
from partial_fc.row_tables import RowTables

GROUP = 512  # rows of similar scale that are multiplied together
_ROUNDING = 4e-6  # of float32 norms, scales and sums, beyond what the codes' residuals allow for


@dataclass(frozen=True, eq=False)
class CodedGroup:
    """Some rows of a tile. places: in the tile.  codes: [g, W] int8.  scale, residual: the largest of them."""

    places: Tensor
    codes: Tensor
    scale: float
    residual: float


@dataclass(frozen=True, eq=False)
class CodedRows:
    """A tile.  rows: [G, D] float32.  groups: all of its rows as codes, by scale; none where they were not coded."""

    rows: Tensor
    groups: tuple[CodedGroup, ...] = ()

    @classmethod
    def of(cls, rows: Tensor) -> "CodedRows":
        """Code unit rows (or zero ones), unit row = scale * code + residual: D + 8 bytes a row."""
        tables = RowTables.around(rows, norm_floor=1e-12, calm=0.0)
        tables.codes = torch.empty(len(rows), tables.code_width, dtype=torch.int8)
        kernels_for(rows.device).encode_rows(tables, 0, len(rows))
        return cls(rows, tuple(_groups(tables, tables.codes)))


def _groups(tables: RowTables, codes: Tensor) -> Iterator[CodedGroup]:
    # One bound on integers serves rows of one scale: sorted, those of a group hardly differ.
    for places in torch.split(tables.scales.argsort(), GROUP):
        scale, residual = float(tables.scales[places].max()), float(tables.slack[places].max())
        yield CodedGroup(places, codes[places], scale, residual + _ROUNDING)
