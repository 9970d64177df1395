"""What a head keeps in memory, by part. Cheap enough to be asked at any time, also by another thread."""

from torch import Tensor

from partial_fc.center_sgd import CenterSGD
from partial_fc.head import PartialFC

PARTS = ("centers", "center_momentum", "center_codes", "center_buffers")


def memory_use(head: PartialFC, optimizer: CenterSGD) -> dict[str, int]:
    """Bytes of this rank, by part.

    centers: the rows as stored, on the device or in host memory. center_momentum: of rows in motion (or of all, for
    losses that touch all), with what is kept of each. center_codes: the int8 copy with its scales and bounds.
    center_buffers: kept from step to step, with the rows that were brought from host memory last.
    """
    centers = head.stored_centers
    momentum = _nbytes(optimizer.state[centers].get("momentum_buffer")) if centers in optimizer.state else 0
    codes, buffers = 0, head.workspace.nbytes
    if head.rows is not None:
        tables, used = head.rows.tables, head.rows.slots.used
        per_slot = (tables.momentum, tables.touched, tables.expiry, tables.unrest)
        momentum += sum(_nbytes(array[:used]) for array in per_slot) + _nbytes(tables.slots)
        buffers += 0 if head.rows.staged is None else head.rows.staged.nbytes
        codes = head.rows.code_bytes + _nbytes(tables.scales) + _nbytes(tables.slack)
    return dict(zip(PARTS, (_nbytes(centers), momentum, codes, buffers), strict=True))


def _nbytes(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()
