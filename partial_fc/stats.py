"""What a head says of its last step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class HeadStats(Mapping[str, Any]):
    """Statistics of one step over the global batch and the classes that took part; the same on every rank.

    Where a step samples its classes, counts and angles of negatives are those of the sampled ones. Readable as
    attributes or as a mapping. NaN where a step had nothing to measure (one class: no negatives).
    """

    mode: Literal["dense", "screened"]
    active_pairs: int  # negatives whose coefficient reaches the cut, over all ranks
    error: float  # estimated relative error of the batch's gradient (0: nothing was dropped)
    cut: float  # coefficient N * dL/dc_j below which a negative does not count as active
    loss: float
    loss_intra: float  # SFace: the positives' part; margin softmax: -mean z_y
    loss_inter: float  # SFace: the negatives' part; margin softmax: mean log-sum-exp of all logits
    theta_positive: float  # mean angle to the own center, rad
    theta_negative: float  # mean angle to all other centers, rad
    theta_negative_std: float  # its standard deviation over pairs, rad
    bytes_moved: int  # payload this rank handed to collectives

    def __getitem__(self, key: str) -> Any:
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in fields(self))

    def __len__(self) -> int:
        return len(fields(self))
