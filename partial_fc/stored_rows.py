"""Rows of a shard's table in plain PyTorch: float32 whatever they are stored in, as stored or as they stand now.

Shape letters: A rows, D embedding size.
"""

import torch
from torch import Tensor

from partial_fc.row_tables import NO_SLOT, RowTables
from partial_fc.stochastic_rounding import round_rows

CHUNK = 4096  # rows or pairs at a time: about what a core's cache holds
CHUNK_ON_GPU = 2**16  # where launching costs more than memory


def row_chunk(tensor: Tensor) -> int:
    """Rows or pairs of ``tensor`` to work on at a time."""
    return CHUNK if tensor.device.type == "cpu" else CHUNK_ON_GPU


def stored_rows(tables: RowTables, rows: Tensor) -> Tensor:
    """[A, D] float32: a copy of the rows as of their last touch."""
    return tables.weights[_places(tables, rows)].float()


def store_rows(tables: RowTables, rows: Tensor, values: Tensor) -> Tensor:
    """Write [A, D] float32; returns what is stored of it, which differs where the table is bfloat16."""
    if tables.weights.dtype != torch.bfloat16:
        tables.weights[_places(tables, rows)] = values
        return values
    rounded = round_rows(values, tables.rounding, rows + tables.rounding.first_class)
    tables.weights[_places(tables, rows)] = rounded
    return rounded.float()


def current_rows(tables: RowTables, rows: Tensor) -> Tensor:
    """[A, D]: the rows as they stand now, moved by what their momentum did since they were touched."""
    weights = stored_rows(tables, rows)
    slots = tables.slots[rows].long()
    live = (slots != NO_SLOT).nonzero().squeeze(1)
    if len(live):
        held = slots[live]
        travel = tables.travel[(tables.now - tables.touched[held]).long()]
        weights[live] -= travel[:, None] * tables.momentum[held]
    return weights


def inverse_norms(tables: RowTables, weights: Tensor) -> Tensor:
    """[A], 0 for rows without direction."""
    norms = weights.norm(dim=1)
    return torch.where(norms > tables.norm_floor, 1.0 / norms, 0.0)


def _places(tables: RowTables, rows: Tensor) -> Tensor:
    return rows if tables.places is None else tables.places[rows].long()
