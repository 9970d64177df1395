"""Centers and batches made to mislead a head that screens pairs by a coarse product and drops small coefficients.

Shape letters: C classes, D embedding size, N batch, M rows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from face_geometry import POSITIVE_ANGLE, STEADY, Faces, at_angle
from torch import Tensor
from torch.nn.functional import normalize

from partial_fc import SFace

CLASSES, DIM, BATCH = 6007, 320, 48
ALL = torch.arange(CLASSES)
CLUSTER = torch.arange(2111, 2611)  # contiguous: a sample of tiles may miss it
SCATTERED = torch.arange(5, CLASSES, 61)
PLAIN = ALL[~torch.isin(ALL, torch.cat([CLUSTER, SCATTERED]))]

Batches = Callable[[Tensor, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Trap:
    """draw(faces): centers [C, D], and a function of (centers as they are by then, step) that makes a batch."""

    name: str
    draw: Callable[[Faces], tuple[Tensor, Batches]]

    def __call__(self, seed: int) -> tuple[Tensor, Batches]:
        return self.draw(Faces(STEADY, CLASSES, DIM, seed))


def rows_at_coefficient(loss: SFace, embeddings: Tensor, rows: Tensor, coefficients: Tensor) -> Tensor:
    """``rows`` [M, D] turned so that each, as a negative of its embedding [M, D], has its coefficient [M, 1]."""
    share = (coefficients.double() / loss.scale).clamp(1e-12, 1.0 - 1e-9)
    angle = loss.b - torch.logit(share) / loss.slope
    return at_angle(normalize(embeddings.double()), rows.double(), angle).float()


def _batches(faces: Faces, *choices: Tensor) -> Batches:
    """Equal parts of the identities from each choice of rows."""

    def batch(centers: Tensor, step: int) -> tuple[Tensor, Tensor]:
        size = BATCH // len(choices)
        picked = [rows[torch.randint(len(rows), (size,), generator=faces.generator)] for rows in choices]
        return faces.batch(centers, BATCH, torch.cat(picked))

    return batch


def _duplicates(faces: Faces) -> tuple[Tensor, Batches]:
    """A cluster of exact copies, scattered copies of another center; both are positives as well."""
    centers = faces.centers.clone()
    centers[CLUSTER] = centers[CLUSTER[0]].clone()
    centers[SCATTERED] = centers[SCATTERED[0]].clone()
    return centers, _batches(faces, CLUSTER, SCATTERED, PLAIN)


def _leaning_cluster(faces: Faces) -> tuple[Tensor, Batches]:
    """A cluster whose coefficients are tiny and add up: each embedding has about the same cosine, 0.19, with it."""
    centers = faces.centers.clone()
    centers[CLUSTER] = at_angle(normalize(centers[CLUSTER]), faces.direction.expand(len(CLUSTER), -1), 1.4)
    mean = normalize(faces.direction + 0.2 * faces.centers[CLUSTER[0]], dim=0)
    centers[CLUSTER] = 0.6 * mean + 0.2 * centers[CLUSTER]

    def batch(current: Tensor, step: int) -> tuple[Tensor, Tensor]:
        identities = PLAIN[torch.randint(len(PLAIN), (BATCH,), generator=faces.generator)]
        own = normalize(current[identities].float())
        sideways = at_angle(own, faces.batch(current, BATCH, identities)[0], math.pi / 2)
        mixed = normalize(0.27 * mean + 0.96 * sideways)
        return 15.0 * at_angle(own, mixed, POSITIVE_ANGLE), identities

    return centers, batch


def _scaled(factor: float, *, positives: bool) -> Callable[[Faces], tuple[Tensor, Batches]]:
    """Rows whose norm is ``factor`` times that of others: the gradient of a center grows with its inverse norm."""

    def draw(faces: Faces) -> tuple[Tensor, Batches]:
        centers = faces.centers.clone()
        centers[CLUSTER[:40]] *= factor
        centers[SCATTERED] *= factor
        return centers, _batches(faces, PLAIN, SCATTERED if positives else PLAIN)

    return draw


def _zeros(faces: Faces) -> tuple[Tensor, Batches]:
    """Centers without a direction, as negatives and as positives, and an embedding without one."""
    centers = faces.centers.clone()
    centers[CLUSTER] = 0.0
    centers[SCATTERED[::2]] = 0.0
    usual = _batches(faces, PLAIN, SCATTERED)

    def batch(current: Tensor, step: int) -> tuple[Tensor, Tensor]:
        embeddings, identities = usual(current, step)
        lost = current[identities].norm(dim=1) == 0.0
        # Around a zero center any direction will do.
        others = faces.batch(current, BATCH, PLAIN[torch.randint(len(PLAIN), (BATCH,), generator=faces.generator)])[0]
        embeddings = torch.where(lost[:, None], others, embeddings)
        embeddings[step % BATCH] = 0.0
        return embeddings, identities

    return centers, batch


def _lost_in_int8(faces: Faces) -> tuple[Tensor, Batches]:
    """One component so large that all others round to 0 in int8, where they lift the cosine over a cut.

    Centers like that meet embeddings spread over all components, and the other way round; some rows have one component
    and nothing else.
    """
    centers = faces.centers.clone()
    flat = torch.sign(torch.randn(BATCH, DIM, generator=faces.generator))
    flat[:, 0] = 0.0
    flat /= flat.norm(dim=1, keepdim=True)
    axis = torch.zeros(DIM)
    axis[0] = 1.0
    peaked = axis + 0.065 * flat
    cosines = torch.linspace(0.05, 0.35, BATCH)[:, None]
    spread = cosines * axis + torch.sqrt(1.0 - cosines**2) * flat
    centers[CLUSTER[:BATCH]], centers[CLUSTER[BATCH : 2 * BATCH]] = peaked, spread
    centers[CLUSTER[100:140]] = torch.eye(DIM)[:40]

    def batch(current: Tensor, step: int) -> tuple[Tensor, Tensor]:
        embeddings, identities = _batches(faces, PLAIN)(current, step)
        kind = torch.arange(BATCH) % 3
        embeddings = torch.where((kind == 1)[:, None], 12.0 * spread.roll(step, 0), embeddings)
        embeddings = torch.where((kind == 2)[:, None], 12.0 * peaked.roll(step, 0), embeddings)
        return embeddings, identities

    return centers, batch


def _uneven_embeddings(faces: Faces) -> tuple[Tensor, Batches]:
    """Embeddings of very unequal length: the gradient of the shortest makes up most of the batch's."""
    usual = _batches(faces, ALL)

    def batch(current: Tensor, step: int) -> tuple[Tensor, Tensor]:
        embeddings, identities = usual(current, step)
        return embeddings * torch.logspace(-3, 3, BATCH).roll(step)[:, None], identities

    return faces.centers, batch


TRAPS = [
    Trap("duplicates", _duplicates),
    Trap("leaning cluster", _leaning_cluster),
    Trap("huge norms", _scaled(1e4, positives=True)),
    Trap("tiny norms", _scaled(1e-6, positives=True)),
    Trap("tiny norms, negatives only", _scaled(1e-6, positives=False)),
    Trap("zero vectors", _zeros),
    Trap("lost in int8", _lost_in_int8),
    Trap("uneven embeddings", _uneven_embeddings),
]
