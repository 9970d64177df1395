"""Centers of new identities at the mean of their images; and whether those that stay are who they are said to be.

How long a new center is made: its angular step is about lr / |w|^2, so a short one is thrown about and a long one
hardly moves. One at the mean of its images is as settled as those of the old run, so it gets their length: the
geometric mean, which a few extreme ones do not move. One that starts at random knows nothing and keeps the short length
that all centers of a new run begin with.

Shape letters: R rows of this rank's class shard, n identities, D embedding size.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from partial_fc import PartialFC
from partial_fc.initial_centers import INIT_STD
from partial_fc.moved_centers import MovedCenters
from trainer.checkpoint import Trained
from trainer.growth.matching import NEW, Matching
from trainer.growth.mean_embeddings import Directions, ImageEmbedder
from trainer.world import World

UNIT = 2.0**24
TILE_ROWS = 4096


def place_new_centers(
    embedder: ImageEmbedder, matching: Matching, trained: Trained, moved: MovedCenters, world: World
) -> tuple[float | None, int]:
    """Set the centers of all new identities that have usable images, the same on any number of ranks.

    Returns their length (None: there are no images to embed), and how many identities have no usable image.
    """
    if not len(matching.images):
        return None, 0
    shard = trained.head.class_shard
    stays = (matching.source[shard.start : shard.stop] != NEW).nonzero().squeeze(1)
    length = usual_length(trained.head, stays, world)
    if length is None:
        length = INIT_STD * math.sqrt(trained.head.embedding_dim)
    unusable = 0
    for found in embedder.mean_directions(matching.images, matching.whose):
        unusable += int((found.directions == 0.0).all(dim=1).sum())
        directions, rows = _of_this_rank(found, trained)
        moved.set_new(rows, (directions * length).float())
    return length, unusable


def usual_length(head: PartialFC, rows: Tensor, world: World) -> float | None:
    """Geometric mean of |w| over ``rows`` [n] of all ranks' centers; None where all of them are 0.

    Logarithms are added up as whole numbers of 2^-24: the same on any number of ranks.
    """
    sums = torch.zeros(2, dtype=torch.int64)  # of logarithms, of rows
    for begin in range(0, len(rows), TILE_ROWS):
        lengths = head.read_rows(rows[begin : begin + TILE_ROWS]).cpu().double().norm(dim=1)
        lengths = lengths[lengths > 0.0]
        sums += torch.stack([(lengths.log2() * UNIT).round().long().sum(), torch.tensor(len(lengths))])
    if world.world_size > 1:
        dist.all_reduce(sums)
    total, count = sums.tolist()
    return float(2.0 ** (total / UNIT / count)) if count else None


def angles_of_kept(
    embedder: ImageEmbedder, matching: Matching, trained: Trained, world: World
) -> tuple[float | None, float | None]:
    """Mean angle of images of identities that stay to their own centers, and to those of others in the sample; rad."""
    sums = torch.zeros(2, 2, dtype=torch.float64)  # own and other: sum and number of angles
    for found in embedder.mean_directions(matching.sample_images, matching.sample_whose):
        directions, rows = _of_this_rank(found, trained)
        units = normalize(trained.head.read_rows(rows).cpu().double())
        for place, theirs in enumerate((units, units.roll(1, 0) if len(units) > 1 else units[:0])):
            angles = (directions[: len(theirs)] * theirs).sum(1).clamp(-1.0, 1.0).acos()
            sums[place] += torch.tensor([float(angles.sum()), float(len(angles))], dtype=torch.float64)
    if world.world_size > 1:
        dist.all_reduce(sums)
    own, other = (total / count if count else None for total, count in sums.tolist())
    return own, other


def _of_this_rank(found: Directions, trained: Trained) -> tuple[Tensor, Tensor]:
    """Directions [n, D] other than 0 and rows [n] of the identities whose centers are here."""
    samples, rows = trained.head.class_shard.local_rows(found.identities)
    directions = found.directions[samples]
    usable = (directions != 0.0).any(dim=1)
    return directions[usable], rows[usable]
