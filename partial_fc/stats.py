"""What a head says of its last step."""

import math
from collections.abc import Iterator, Mapping, Sequence
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
    samples: int = 0  # N of the global batch
    gradient_norm: float = 0.0  # of the embeddings' gradient, over the global batch; 0 where nothing needs it
    dropped_mass: float = 0.0  # estimated share of the negatives' coefficients that the cut leaves out

    def __getitem__(self, key: str) -> Any:
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in fields(self))

    def __len__(self) -> int:
        return len(fields(self))


def combined_stats(parts: Sequence[HeadStats]) -> HeadStats:
    """Of one optimizer step, from those of its micro-batches: as if they had been one batch.

    Means are weighted by samples. Micro-batches have different rows of the embeddings' gradient, so its squared norms
    add up, and those of its errors. ``mode`` is "dense" if one was; ``cut`` is the largest.
    """
    if len(parts) == 1:
        return parts[0]
    samples = sum(part.samples for part in parts)
    shares = [part.samples / samples for part in parts]

    def mean(values: Sequence[float]) -> float:
        known = [(share, value) for share, value in zip(shares, values, strict=True) if not math.isnan(value)]
        total = sum(share for share, _ in known)
        return sum(share * value for share, value in known) / total if total else math.nan

    negative = mean([part.theta_negative for part in parts])
    spread = mean([part.theta_negative_std**2 + (part.theta_negative - negative) ** 2 for part in parts])
    norms = [share * part.gradient_norm for share, part in zip(shares, parts, strict=True)]
    norm = math.hypot(*norms)
    errors = math.hypot(*(size * part.error for size, part in zip(norms, parts, strict=True)))
    losses = {
        name: sum(share * part[name] for share, part in zip(shares, parts, strict=True))
        for name in ("loss", "loss_intra", "loss_inter")
    }
    return HeadStats(
        mode="dense" if any(part.mode == "dense" for part in parts) else "screened",
        active_pairs=sum(part.active_pairs for part in parts),
        error=errors / norm if norm else 0.0,
        cut=max(part.cut for part in parts),
        **losses,
        theta_positive=mean([part.theta_positive for part in parts]),
        theta_negative=negative,
        theta_negative_std=math.sqrt(spread) if spread >= 0.0 else math.nan,
        bytes_moved=sum(part.bytes_moved for part in parts),
        samples=samples,
        gradient_norm=norm,
        dropped_mass=mean([part.dropped_mass for part in parts]),
    )
