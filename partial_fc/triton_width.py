"""How wide a Triton program is that works on a whole row."""

import triton


def row_width(dim: int) -> dict[str, int]:
    """Arguments of its launch, for rows of ``dim`` numbers: a warp for each 512 of them."""
    block = triton.next_power_of_2(dim)
    return {"BLOCK": block, "num_warps": max(1, min(8, block // 512))}
