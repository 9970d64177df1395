"""Who is who in two data sets: for each identity of the new one the number it had in the old one.

Shape letters: C identities of the new data set, M images to embed.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.identity_names import IdentityNames
from trainer.errors import ConfigError
from trainer.world import World

NEW = -1


@dataclass(frozen=True)
class Matching:
    """source: [C] int64, an identity's number in the old run or ``NEW``. num_old: identities of the old run.

    images: [M] int64, positions of images of new identities; whose: [M] int64, ascending. sample_images,
    sample_whose: the same of some identities that stay, one image each. vacant: new identities without images.
    """

    source: Tensor
    num_old: int
    images: Tensor
    whose: Tensor
    sample_images: Tensor
    sample_whose: Tensor
    vacant: int

    @property
    def kept(self) -> int:
        """Identities that stay."""
        return int((self.source != NEW).sum())

    @property
    def new(self) -> int:
        """Identities that the old run did not have, those without images included."""
        return len(self.source) - self.kept

    @property
    def left(self) -> int:
        """Identities of the old run that are no more."""
        return self.num_old - self.kept

    def share(self, world: World) -> "Matching":
        """Rank 0's, on every rank."""
        if world.world_size == 1:
            return self
        tensors = [self.source, self.images, self.whose, self.sample_images, self.sample_whose]
        numbers = torch.tensor([*map(len, tensors), self.num_old, self.vacant])
        dist.broadcast(numbers, 0)
        *lengths, num_old, vacant = numbers.tolist()
        if not world.is_first:
            tensors = [torch.empty(length, dtype=torch.int64) for length in lengths]
        for tensor in tensors:
            dist.broadcast(tensor, 0)
        source, images, whose, sample_images, sample_whose = tensors
        return Matching(source, num_old, images, whose, sample_images, sample_whose, vacant)

    @classmethod
    def empty(cls) -> "Matching":
        """What ranks hold before rank 0 shares."""
        nothing = torch.empty(0, dtype=torch.int64)
        return cls(nothing, 0, nothing, nothing, nothing, nothing, 0)


def match(
    old: IdentityNames | None,
    new: IdentityNames | None,
    *,
    num_old: int,
    num_new: int,
    identities: NDArray[np.int64],
    images_per_identity: int,
    sample: int,
) -> Matching:
    """Match by name; without names (None) an identity's name is its number.

    identities: of every image of the new data set, -1 for one that cannot be read. images_per_identity: images of a new
    identity to embed, at most (0: none), evenly over those it has. sample: identities that stay to embed, at most.
    Raises ConfigError when nobody stays.
    """
    source = np.full(num_new, NEW, dtype=np.int64)
    if old is None and new is None:
        source[:num_old] = np.arange(min(num_old, num_new))
    else:
        theirs = old if old is not None else IdentityNames.numbers(np.arange(num_old), "the old run")
        ours = new if new is not None else IdentityNames.numbers(np.arange(num_new), "the data set")
        places = ours.places_in(theirs)
        source[ours.ids[places >= 0]] = theirs.ids[places[places >= 0]]
    if not np.any(source != NEW):
        raise ConfigError(_nobody(old, new))
    counts = np.bincount(identities[identities >= 0], minlength=num_new)
    images, whose = _spread(identities, np.where(source == NEW, images_per_identity, 0))
    kept = np.flatnonzero((source != NEW) & (counts > 0))
    sampled = np.zeros(num_new, dtype=np.int64)
    sampled[kept[np.arange(min(sample, len(kept))) * len(kept) // max(1, min(sample, len(kept)))]] = 1
    sample_images, sample_whose = _spread(identities, sampled)
    return Matching(
        torch.from_numpy(source),
        num_old,
        torch.from_numpy(images),
        torch.from_numpy(whose),
        torch.from_numpy(sample_images),
        torch.from_numpy(sample_whose),
        int(np.sum((source == NEW) & (counts == 0))),
    )


def _spread(identities: NDArray[np.int64], limits: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of at most ``limits[i]`` images of each identity i, evenly over those it has; and whose they are."""
    wanted = np.flatnonzero((identities >= 0) & (limits[identities] > 0))
    wanted = wanted[np.argsort(identities[wanted], kind="stable")]
    present, starts, counts = np.unique(identities[wanted], return_index=True, return_counts=True)
    taken = np.minimum(counts, limits[present])
    whose = np.repeat(present, taken)
    number = np.arange(len(whose)) - np.repeat(np.cumsum(taken) - taken, taken)  # 0, 1, ... of each identity
    places = np.repeat(starts, taken) + number * np.repeat(counts, taken) // np.repeat(np.maximum(taken, 1), taken)
    return wanted[places], whose


def _nobody(old: IdentityNames | None, new: IdentityNames | None) -> str:
    def some(names: IdentityNames | None) -> str:
        if names is None:
            return "goes by numbers, it has no identities.tsv"
        return f"has names like {names.name(0)!r} ({names.source})"

    return (
        f"growth: no identity of the data set is one of the old run's: the data set {some(new)}; "
        f"the old run {some(old)}; give both the same names, or start from the backbone alone with backbone.pretrained"
    )
