"""A rotating sample of centers, scored exactly: what a cut would drop, measured before it is made.

Shape letters: R rows of the class shard, S sampled rows, N global batch, M own pairs, L levels, D embedding size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.center_rows import CenterRows
from partial_fc.class_shard import ClassShard
from partial_fc.full_batch import FullBatch
from partial_fc.kernels_torch import OWN_PAIR
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
    cosines = torch.mm(centers, whole.transposed, out=workspace.take("sampled cosines", count, batch))
    if count:
        place = torch.searchsorted(sampled, own[0]).clamp_max_(count - 1)
        # Not chosen by a mask: whoever asks a GPU how many there are waits for it.
        chosen = torch.where(sampled[place] == own[0], OWN_PAIR, cosines[place, own[1]])
        cosines[place, own[1]] = chosen
    levels = torch.zeros(LEVELS, 4, dtype=torch.float64, device=unit.device)
    sums = torch.zeros(3, dtype=torch.float64, device=unit.device)
    weights, sample_weights = center_inverse / rows.shared.scale, inverse.squeeze(1).contiguous()
    cut = level_cut(level, loss.scale)
    rows.kernels.sample_levels(cosines, weights, sample_weights, loss, cut, levels, sums)
    dropped = cosines  # [S, N] coefficients now
    squares = weights.double().square(), sample_weights.double().square()
    push = torch.mm(dropped.T, centers, out=workspace.take("sampled push", batch, dim))
    radial = torch.linalg.vecdot(push, unit).double()
    below = levels[level:].sum(dim=0)
    coherent = torch.dot(squares[1], _squared_norms(push, 1) - radial.square()) - below[2]
    mass = torch.dot(squares[1], dropped.sum(dim=0, dtype=torch.float64).square() - _squared_norms(dropped, 0))
    weighted = dropped * sample_weights
    gram = _squared_norms(torch.mm(weighted.T, weighted), None)
    chance = 2.0 * (gram - _squared_norms(weighted, 1).square().sum()).clamp_min(0.0)
    pull = torch.mm(dropped, unit, out=workspace.take("sampled pull", count, dim))
    tangential = _squared_norms(pull, 1) - torch.linalg.vecdot(pull, centers).double().square()
    return torch.cat(
        [
            levels.flatten(),
            sums,
            torch.stack([coherent, mass, chance, radial.sum(), torch.dot(squares[0], tangential.clamp_min(0.0))]),
            _own_force(rows, own, unit, squares[1], loss),
            torch.stack([squares[1].new_tensor(count), count * squares[1].mean()]),
        ]
    )


def _squared_norms(tensor: Tensor, dim: int | None) -> Tensor:
    """Sums of squares along ``dim``, or of all, in float64 without a copy in it."""
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dim, dtype=torch.float64)
    return norms.square()


def _own_force(rows: CenterRows, own: tuple[Tensor, Tensor], unit: Tensor, squares: Tensor, loss: SFace) -> Tensor:
    """[2]: coefficient^2 sin^2 of own pairs over |x|^2 and over |w|^2."""
    centers, inverse = unit.new_empty(len(own[0]), unit.shape[1]), unit.new_empty(len(own[0]))
    rows.unit_rows(own[0], 0, centers, inverse)
    cosines = torch.linalg.vecdot(centers, unit[own[1]])
    force = loss.positive_coefficient(cosines).double() ** 2 * (1.0 - cosines.double() ** 2).clamp_min(0.0)
    return torch.stack([(force * squares[own[1]]).sum(), (force * (inverse.double() / rows.shared.scale) ** 2).sum()])
