"""A rotating sample of centers, scored exactly: what a cut would drop, measured before it is made.

Shape letters: R rows of the class shard, S sampled rows, N global batch, M own pairs, L levels, D embedding size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.center_rows import CenterRows
from partial_fc.class_shard import ClassShard
from partial_fc.coefficient_kernels_torch import OWN_PAIR
from partial_fc.full_batch import FullBatch
from partial_fc.kernels import sample_kernels_for
from partial_fc.products import product
from partial_fc.sface import SFace
from partial_fc.workspace import Workspace

LEVELS = 56  # half octaves of coefficient / scale: down to 2^-28
DROP_SUMS = LEVELS * 4 + 12  # numbers that ranks exchange
SAMPLED_SHARE = 128  # one center in so many, but at least FEWEST_SAMPLED
FEWEST_SAMPLED = 512
STRIDE_STEP = 0.6180339887498949  # successive offsets of the sample spread evenly


def level_cut(level: int, scale: float) -> float:
    """The smallest coefficient that level ``level - 1`` holds: what a cut at ``level`` keeps."""
    code = torch.tensor((254 - level) << 22, dtype=torch.int32)
    return scale * float(code.view(torch.float32))


@dataclass(frozen=True)
class DropSums:
    """Sums over sampled negatives and all own pairs, over all ranks; layout of the [L*4 + 12] vector.

    levels: [L, 4], see kernels_torch.sample_levels. For the pairs below the measured level, with d their coefficients:
    coherent: sum over samples of (|sum_j d_j u_j|^2 tangential - sum_j d_j^2 sin^2) / |x|^2, the cross terms;
    mass: sum over samples of ((sum_j d_j)^2 - sum_j d_j^2) / |x|^2; chance: variance of ``coherent`` if directions were
    random, times their dimension; dropped_loss: sum of d*c.
    center_force: sum over sampled centers of |sum_i d_i x_i|^2 tangential / |w|^2. own: coefficient^2 sin^2 over
    |x|^2 and over |w|^2 of the own pairs. sampled: centers in the sample;
    weights: those times the mean of 1/|x|^2 over the batch.
    """

    levels: Tensor
    negatives: float
    angles: float  # of negatives, pi/2 - theta
    angle_squares: float
    coherent: float
    mass: float
    chance: float
    dropped_loss: float
    center_force: float
    own_embedding_force: float
    own_center_force: float
    sampled: float
    weights: float

    @classmethod
    def of(cls, vector: Tensor) -> "DropSums":
        """Read the vector."""
        vector = vector.double().cpu()
        return cls(vector[: LEVELS * 4].view(LEVELS, 4), *vector[LEVELS * 4 :].tolist())

    @property
    def coherence(self) -> float:
        """Mean cosine between dropped centers, weighted as they are dropped."""
        return self.coherent / self.mass if self.mass > 0.0 else 0.0

    @property
    def coherence_variance(self) -> float:
        """What chance alone would make of it; the mean squared cosine of all negatives is one over their dimension."""
        if self.mass <= 0.0 or not self.negatives:
            return 0.0
        return self.chance * self.angle_squares / self.negatives / self.mass**2


def sample_rows(shard: ClassShard, num_classes: int, step: int, device: torch.device) -> Tensor:
    """Rows of this shard in the sample of a step: global class ids of one remainder, so the same at any world size."""
    stride = max(1, min(SAMPLED_SHARE, num_classes // FEWEST_SAMPLED))
    offset = int(math.modf((step + 1) * STRIDE_STEP)[0] * stride)
    first = (offset - shard.start) % stride
    return torch.arange(first, len(shard), stride, device=device)


def measure_drop(
    rows: CenterRows,
    sampled: Tensor,
    whole: FullBatch,
    loss: SFace,
    level: int,
    workspace: Workspace,
) -> Tensor:
    """This rank's part of the vector of :class:`DropSums`, with the cut at ``level``."""
    unit, inverse, own = whole.unit, whole.inverse, whole.own
    count, (batch, dim) = len(sampled), unit.shape
    centers, center_inverse = workspace.take("sampled", count, dim), workspace.take("sampled inverse", count)
    rows.unit_rows(sampled, 0, centers, center_inverse)
    cosines = product(centers, whole.transposed, workspace.take("sampled cosines", count, batch))
    if count:
        place = torch.searchsorted(sampled, own[0]).clamp_max_(count - 1)
        # Not chosen by a mask: whoever asks a GPU how many there are waits for it.
        chosen = torch.where(sampled[place] == own[0], OWN_PAIR, cosines[place, own[1]])
        cosines[place, own[1]] = chosen
    levels = torch.zeros(LEVELS, 4, dtype=torch.float64, device=unit.device)
    sums = torch.zeros(3, dtype=torch.float64, device=unit.device)
    weights, sample_weights = center_inverse / rows.shared.scale, inverse.squeeze(1)
    cut = level_cut(level, loss.scale)
    rows.kernels.sample_levels(cosines, weights, sample_weights, loss, cut, levels, sums)
    dropped = cosines  # [S, N] coefficients now
    push = product(dropped.T, centers, workspace.take("sampled push", batch, dim))
    gram = product(dropped.T, dropped, workspace.take("sampled gram", batch, batch))
    pull = product(dropped, unit, workspace.take("sampled pull", count, dim))
    kernels = sample_kernels_for(unit)
    below = levels[level:, 2].sum()
    forces = kernels.drop_forces(dropped, push, gram, pull, centers, unit, weights, sample_weights, below)
    own_centers = workspace.take("own centers", len(own[0]), dim)
    own_inverse = workspace.take("own inverse", len(own[0]))
    rows.unit_rows(own[0], 0, own_centers, own_inverse)
    own_forces = kernels.own_forces(own_centers, own_inverse / rows.shared.scale, own[1], unit, sample_weights, loss)
    sizes = torch.stack([levels.new_tensor(count), count * sample_weights.double().square().mean()])
    return torch.cat([levels.flatten(), sums, forces, own_forces, sizes])
