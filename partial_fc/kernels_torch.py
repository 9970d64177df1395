"""The kernels of the head in plain PyTorch: the reference of the compiled ones, and what other devices run.

One name for what lies in files of one idea each: rows, pairs, coefficients.
"""

from partial_fc.coefficient_kernels_torch import OWN_PAIR, dense_coefficients, sample_levels
from partial_fc.pair_kernels_torch import candidate_rows, exact_cosines, fixed, gradient_blocks, score_tile, tile_rows
from partial_fc.row_kernels_torch import (
    LARGEST_CODE,
    MUCH_UNREST,
    ROUNDING_SLACK,
    SHORTEST_LIFE,
    encode_rows,
    gather_unit,
    settle_rows,
    update_dense,
    update_rows,
)

__all__ = [
    "LARGEST_CODE",
    "MUCH_UNREST",
    "OWN_PAIR",
    "ROUNDING_SLACK",
    "SHORTEST_LIFE",
    "candidate_rows",
    "dense_coefficients",
    "encode_rows",
    "exact_cosines",
    "fixed",
    "gather_unit",
    "gradient_blocks",
    "sample_levels",
    "score_tile",
    "settle_rows",
    "tile_rows",
    "update_dense",
    "update_rows",
]

FUSED = False  # whether there is a ``screen_tile``, which takes no products
