"""The arrays of one class shard: centers, their int8 codes and, where a row has one, its momentum.

Shape letters: R rows of the class shard, D embedding size, W code width (D rounded up to 8), K momentum slots.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from partial_fc.stochastic_rounding import Rounding

NO_SLOT = -1
CODE_ALIGNMENT = 8


@dataclass
class RowTables:
    """Filled and read by the kernels; :class:`partial_fc.center_rows.CenterRows` says what the fields mean together.

    weights: [R, D] float32 or bfloat16, as of ``touched`` of the row's slot; current where it has none.
    codes: [R, W] int8, or None; scales: [R], so that unit row = scale * code + residual; slack: [R], bound on
    |unit row - scale * code|, including what the row may still drift before it is touched.
    slots: [R] int32, place of the row's momentum or -1. momentum: [K, D], touched: [K] int32 (step), expiry: [K] int32
    (step from which the rest of the movement is below rounding), unrest: [K] (bound on the angle still to be moved).
    travel, decay: float32 by age: sum of rate * momentum_factor^k over the steps since, and momentum_factor^age.
    now: optimizer steps taken. norm_floor: rows no longer than this have no direction. calm: rows with less unrest
    are left alone between touches. rounding: of bfloat16 rows that are written next.
    places: None where row i lies at place i of ``weights``; else [R] int32, where those rows lie that are there now.
    """

    weights: Tensor
    codes: Tensor | None
    scales: Tensor
    slack: Tensor
    slots: Tensor
    momentum: Tensor
    touched: Tensor
    expiry: Tensor
    unrest: Tensor
    travel: Tensor
    decay: Tensor
    now: int
    norm_floor: float
    calm: float
    rounding: Rounding = field(default_factory=lambda: Rounding(0))
    places: Tensor | None = None

    @classmethod
    def around(
        cls,
        weights: Tensor,
        *,
        norm_floor: float,
        calm: float,
        first_class: int = 0,
        device: torch.device | None = None,
    ) -> "RowTables":
        """Tables without codes and without momentum. device: of all else, where that is not where weights are."""
        rows, dim = weights.shape
        device = weights.device if device is None else device
        empty = torch.empty(0, dtype=torch.int32, device=device)
        return cls(
            weights=weights,
            codes=None,
            scales=torch.zeros(rows, device=device),
            slack=torch.zeros(rows, device=device),
            slots=torch.full((rows,), NO_SLOT, dtype=torch.int32, device=device),
            momentum=torch.empty(0, dim, device=device),
            touched=empty,
            expiry=empty.clone(),
            unrest=torch.empty(0, device=device),
            travel=torch.zeros(1, device=device),
            decay=torch.ones(1, device=device),
            now=0,
            norm_floor=norm_floor,
            calm=calm,
            rounding=Rounding(0, first_class),
        )

    @property
    def code_width(self) -> int:
        """W: int8 products on GPUs want multiples of 8."""
        return -(-self.weights.shape[1] // CODE_ALIGNMENT) * CODE_ALIGNMENT


@dataclass(frozen=True)
class Motion:
    """One optimizer step as the kernels need it.

    rate: of the step, momentum_factor: mu. reach: bound on the sum of rate * mu^k over all later steps, so that a row
    with momentum e moves by at most reach * |e|. rounding: relative movement that float32 cannot tell from none.
    longest: steps after which a slot expires at the latest.
    """

    rate: float
    momentum_factor: float
    reach: float
    patient_reach: float
    rounding: float
    longest: int
