"""CenterSGD beside torch.optim.SGD on dense centers, fed with the gradients that the head itself computed.

Most rows rest most of the time: some are positives in every batch, some once, some after a gap, some never. The head
is not asked for its centers on the way, unless a test is about that.
Shape letters: C classes, D embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from face_geometry import Faces, Phase
from head_accuracy import DenseTwin
from torch import Tensor

from partial_fc import CenterSGD, PartialFC, SFace
from partial_fc.reference import dense_sface

CLASSES, DIM = 4507, 192  # as many as it takes for a step to be screened; a prime
OFTEN, ONCE, LATE, NEVER = range(6), range(6, 200), range(200, 206), range(1000, CLASSES)
NO_ROWS = range(0)
USUAL = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
HEAVY = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}  # a row left behind shows after a few steps
FACES = Faces(Phase("far apart", 191), CLASSES, DIM, seed=2)

Settings = dict[str, float]
Schedule = Callable[[int], Settings]


@dataclass
class Pair:
    """A head with CenterSGD and, fed with its gradients, torch.optim.SGD in float64 and in float32.

    Of several ranks each has its own, on its rows and with ``share`` of every batch.
    """

    settings: Settings
    share: slice = field(default_factory=lambda: slice(None))
    step_number: int = 0
    start: Tensor = field(init=False)
    head: PartialFC = field(init=False)
    optimizer: CenterSGD = field(init=False)
    twins: list[DenseTwin] = field(init=False)

    def __post_init__(self) -> None:
        self.head = PartialFC(CLASSES, DIM)
        self.start = FACES.centers[self.head.class_shard.start : self.head.class_shard.stop]
        self.head.load_centers(self.start)
        self.optimizer = CenterSGD(self.head, **self.settings)
        self.twins = [DenseTwin.of(self.start, self.settings, dtype) for dtype in (torch.float64, torch.float32)]

    def batch(self, rows: range = NO_ROWS) -> tuple[Tensor, Tensor]:
        """Embeddings around the rows of OFTEN and two of ``rows``, another two at each step; and their identities."""
        generator = torch.Generator().manual_seed(self.step_number)
        extra = [rows[(2 * self.step_number + place) % len(rows)] for place in (0, 1)] if rows else []
        identities = torch.tensor([*OFTEN, *extra])
        noise = torch.randn(len(identities), DIM, generator=generator)
        return noise + 10.0 * FACES.centers[identities], identities

    def backward(self, rows: range = NO_ROWS, factor: float = 1.0) -> None:
        """The head's gradient of one batch, added to what it holds."""
        embeddings, identities = self.batch(rows)
        (self.head(embeddings[self.share], identities[self.share]) * factor).backward()

    def step(self, rows: range = NO_ROWS, new: Settings | None = None) -> None:
        """Forward, backward and update of all three."""
        self.backward(rows)
        self.update(new)

    def update(self, new: Settings | None = None) -> None:
        """Update of all three with the gradient at hand."""
        gradient = self.head.center_gradient()
        self.optimizer.param_groups[0].update(new or {})
        self.optimizer.step()
        self.optimizer.zero_grad()
        for twin in self.twins:
            twin.step(gradient, new)
        self.step_number += 1

    def steps(self, count: int, rows: range = NO_ROWS, schedule: Schedule | None = None) -> None:
        for _ in range(count):
            self.step(rows, None if schedule is None else schedule(self.step_number))

    def check(self) -> None:
        """Every row is where float64 puts it, as nearly as torch.optim.SGD in float32 comes to it."""
        truth, native = (twin.now.double() for twin in self.twins)
        size = truth.norm(dim=1) + self.start.norm(dim=1)
        found_error, native_error = ((rows - truth).norm(dim=1) / size for rows in (self.head.centers.detach(), native))
        worst = int(found_error.argmax())
        assert found_error.max() <= 6 * native_error.max() + 4 * 2.0**-24, (worst, float(found_error.max()))
        assert found_error.square().mean().sqrt() <= 4 * native_error.square().mean().sqrt() + 2 * 2.0**-24

    def write(self, row: int, value: Tensor) -> None:
        """Into the twins, as a user writes into the head: momentum that decay made stays in proportion to the row."""
        assert self.head.rows is not None
        for twin in self.twins:
            new = value.to(twin.now.dtype)
            twin.momentum[row] += self.head.rows.shared.carry * (new - twin.now[row])
            twin.now[row] = new

    def check_loss(self, row: int) -> None:
        """A forward sees the centers as they are, ``row`` included."""
        embeddings, identities = self.batch(range(row, row + 1))
        truth = dense_sface(embeddings.double(), identities, self.twins[0].now, SFace())[0]
        with torch.no_grad():
            assert self.head(embeddings, identities).item() == pytest.approx(truth.item(), rel=1e-3)

    def new_twin_optimizers(self, settings: Settings) -> None:
        """The twins go on from where they are, without momentum."""
        self.twins = [DenseTwin.of(twin.now, settings, twin.now.dtype) for twin in self.twins]
