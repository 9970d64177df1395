"""300 steps of the head with CenterSGD and of the dense float64 reference with torch.optim.SGD end in the same model.

Shape letters: C classes, D embedding size, N batch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from face_geometry import POSITIVE_ANGLE, Faces, Phase, at_angle
from head_accuracy import expect_screened
from torch import Tensor
from torch.nn.functional import normalize

from partial_fc import CenterSGD, PartialFC, SFace
from partial_fc.reference import dense_sface

pytestmark = pytest.mark.numerics

CLASSES, BATCH, STEPS, WARMUP = 4201, 32, 300, 20
MOMENTUM, DECAY = 0.9, 5e-4
TOLERANCE = 1e-3
SFACE = SFace()


@dataclass(frozen=True)
class Case:
    """dimension: m, all of the D = m + 1 dimensions but one. backbone: embeddings come from one, trained too."""

    name: str
    dimension: int
    peak: float
    backbone: bool


# Where negatives are near, an error made early is multiplied later: by 4 at the full learning rate, spread 0.09.
CASES = [
    Case("embeddings follow the centers", 278, 0.1, backbone=False),
    Case("linear backbone", 278, 0.1, backbone=True),
    Case("weak, low learning rate", 127, 0.01, backbone=False),
]


@dataclass(frozen=True)
class Model:
    """Centers [C, D] and a linear backbone [D, D]."""

    centers: Tensor
    backbone: Tensor


class Problem:
    """The same start and the same batches for both runs. A third of the classes never occur as positives."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.dim = case.dimension + 1
        faces = Faces(Phase(case.name, case.dimension), CLASSES, self.dim, seed=4)
        self.start = Model(faces.centers, torch.eye(self.dim))
        present = torch.randperm(CLASSES, generator=faces.generator)[: CLASSES * 2 // 3]
        self.identities = [present[torch.randint(len(present), (BATCH,), generator=faces.generator)] for _ in self]
        self.sideways = [torch.randn(BATCH, self.dim, generator=faces.generator) for _ in self]

    def __iter__(self) -> Iterator[int]:
        return iter(range(STEPS))

    def learning_rate(self, step: int) -> float:
        """Warm-up, then a cosine to nearly 0."""
        if step < WARMUP:
            return self.case.peak * (step + 1) / WARMUP
        return self.case.peak * 0.5 * (1.0 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))

    def around(self, centers: Tensor, step: int) -> Tensor:
        """[N, D] float32, at 0.9 rad from each identity's row of ``centers``."""
        own = normalize(centers[self.identities[step]].float())
        return 12.0 * at_angle(own, self.sideways[step], POSITIVE_ANGLE)

    def by_the_reference(self) -> tuple[Model, list[Tensor]]:
        """The final float64 model, and what the backbone saw, or the head where none is trained, at each step."""
        centers, backbone = (start.double().requires_grad_() for start in (self.start.centers, self.start.backbone))
        optimizer = torch.optim.SGD([centers, backbone], lr=0.0, momentum=MOMENTUM, weight_decay=DECAY)
        inputs = []
        for step in self:
            optimizer.param_groups[0]["lr"] = self.learning_rate(step)
            inputs.append(self.around(self.start.centers if self.case.backbone else centers.detach(), step))
            embeddings = inputs[-1].double() @ backbone if self.case.backbone else inputs[-1].double()
            torch.autograd.backward(dense_sface(embeddings, self.identities[step], centers, SFACE)[0])
            optimizer.step()
            optimizer.zero_grad()
        return Model(centers.detach(), backbone.detach()), inputs

    def by_the_head(self, head: PartialFC, inputs: list[Tensor]) -> tuple[Model, Tensor]:
        """The final model, and which rows [C] ever had a gradient."""
        head.load_centers(self.start.centers)
        backbone = self.start.backbone.clone().requires_grad_()
        optimizers = [
            CenterSGD(head, lr=0.0, momentum=MOMENTUM, weight_decay=DECAY),
            torch.optim.SGD([backbone], lr=0.0, momentum=MOMENTUM, weight_decay=DECAY),
        ]
        touched = torch.zeros(CLASSES, dtype=torch.bool)
        for step in self:
            head(inputs[step] @ backbone if self.case.backbone else inputs[step], self.identities[step]).backward()
            gradient = head.center_gradient()
            assert gradient is not None
            touched |= gradient.count_nonzero(dim=1) > 0
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = self.learning_rate(step)
                optimizer.step()
                optimizer.zero_grad()
        return Model(head.centers.detach(), backbone.detach()), touched

    def decay_alone(self) -> float:
        """What is left of a row that never had a gradient: the factor on its start."""
        row, momentum = 1.0, 0.0
        for step in self:
            momentum = MOMENTUM * momentum + DECAY * row
            row -= self.learning_rate(step) * momentum
        return row


def distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_300_steps_end_in_the_same_model(case: Case) -> None:
    problem = Problem(case)
    truth, inputs = problem.by_the_reference()
    head = PartialFC(CLASSES, problem.dim, SFACE, tolerance=TOLERANCE)
    found, touched = problem.by_the_head(head, inputs)
    moved = distance(truth.centers, problem.start.centers)
    assert moved > 0.05 * problem.start.centers.norm(), "the run is long enough to tell something"
    assert distance(found.centers, truth.centers) <= TOLERANCE * moved
    if case.backbone:
        moved = distance(truth.backbone, problem.start.backbone)
        assert distance(found.backbone, truth.backbone) <= TOLERANCE * moved
    decayed = problem.start.centers[~touched].double() * problem.decay_alone()
    torch.testing.assert_close(found.centers[~touched].double(), decayed, rtol=3e-6, atol=1e-7)
    if case.dimension == 278:
        expect_screened(head.stats, case.name)
        assert 0 < int(touched.sum()) < CLASSES, "steady: most classes that never occur are never touched"
