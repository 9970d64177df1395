"""Training a head on one rank and the same by the dense reference: what the distributed tests compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rounded_training import rounded_training

from partial_fc import (
    ArcFace,
    CenterSGD,
    CombinedMargin,
    CosFace,
    PartialFC,
    SFace,
    center_state,
)
from partial_fc.center_module import CenterDtype, CenterMemory
from partial_fc.reference import dense_margin_softmax, dense_sface

STEPS = 20
SAMPLED_STEPS = 6
# dL/dtheta has slope 80: each step turns half an ulp of a cosine into up to 80/4 of it, and steps add up.
AMPLIFIED_ROUNDING = STEPS * (80 / 4) * 2.0**-24

Loss = SFace | CombinedMargin
SFACE = SFace()


@dataclass(frozen=True)
class Case:
    num_classes: int
    embedding_dim: int
    last_batch: tuple[int, ...]  # samples of ranks 0..3 in the last step
    tile_classes: int
    shared_direction: float  # how much all embeddings share a direction: many active pairs
    loss: Loss = SFACE
    sample_rate: float = 1.0

    @property
    def steps(self) -> int:
        return STEPS if self.sample_rate == 1.0 else SAMPLED_STEPS

    def batch(self, step: int, world_size: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Global embeddings, identities and the sizes per rank."""
        generator = torch.Generator().manual_seed(1000 * self.num_classes + step)
        sizes = list(self.last_batch[:world_size]) if step == self.steps - 1 else [5] * world_size
        rows = sum(sizes)
        direction = torch.randn(1, self.embedding_dim, generator=generator) * self.shared_direction
        embeddings = torch.randn(rows, self.embedding_dim, generator=generator) + direction
        return embeddings, torch.randint(self.num_classes, (rows,), generator=generator), sizes

    def dense_loss(
        self,
        embeddings: torch.Tensor,
        identities: torch.Tensor,
        centers: torch.Tensor,
        negative_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if isinstance(self.loss, SFace):
            return dense_sface(embeddings, identities, centers, self.loss, negative_weights=negative_weights)[0]
        return dense_margin_softmax(embeddings, identities, centers, self.loss)


SFACE_CASES = [
    Case(num_classes=1, embedding_dim=4, last_batch=(3, 1, 2, 5), tile_classes=8, shared_direction=0.0),
    Case(num_classes=3, embedding_dim=8, last_batch=(1, 4, 0, 2), tile_classes=2, shared_direction=0.0),
    Case(num_classes=10, embedding_dim=16, last_batch=(5, 5, 5, 5), tile_classes=3, shared_direction=1.0),
    Case(num_classes=257, embedding_dim=7, last_batch=(2, 0, 1, 0), tile_classes=50, shared_direction=3.0),
    Case(num_classes=1031, embedding_dim=32, last_batch=(7, 3, 1, 2), tile_classes=8192, shared_direction=0.0),
]
MARGIN_CASES = [
    Case(1, 4, (3, 1, 2, 5), 8, 0.0, ArcFace()),
    Case(3, 8, (1, 4, 0, 2), 2, 0.0, CosFace()),
    Case(10, 16, (5, 5, 5, 5), 3, 1.0, CombinedMargin(32.0, 1.1, 0.3, 0.1)),
    Case(257, 7, (2, 0, 1, 0), 50, 1.0, CosFace(scale=16.0, interclass_filter=0.7)),
    Case(1031, 32, (7, 3, 1, 2), 8192, 0.0, ArcFace()),
]
SAMPLED_CASES = [
    Case(3, 8, (1, 4, 0, 2), 2, 0.0, ArcFace(), sample_rate=0.4),
    Case(257, 16, (2, 0, 1, 0), 50, 1.0, SFace(), sample_rate=0.3),
    Case(130, 16, (3, 0, 2, 1), 8192, 0.0, SFace(sampled_negative_weight="none"), sample_rate=0.5),
    Case(257, 16, (2, 4, 0, 3), 11, 0.0, CosFace(), sample_rate=0.1),
]

KEPT: list[tuple[CenterDtype, CenterMemory]] = [("float32", "host"), ("bfloat16", "device"), ("bfloat16", "host")]


def learning_rate(step: int) -> float:
    return 0.1 if step < 12 else 0.01


def everything_on_one_rank(rank: int, world_size: int) -> dict[str, Any]:
    """All that the tests of one world size need, so that its processes start once."""
    return {
        "sface": [train_case(case, rank, world_size) for case in SFACE_CASES],
        "margins": [train_case(case, rank, world_size) for case in MARGIN_CASES],
        "sampled": [train_case(case, rank, world_size) for case in SAMPLED_CASES],
        "sampled as stored": {
            kept: [train_case(case, rank, world_size, *kept) for case in SAMPLED_CASES] for kept in KEPT
        },
        "bfloat16": rounded_training(rank, world_size),
        "bytes": {
            (type(loss).__name__, classes): bytes_of_one_step(loss, classes)
            for loss in (SFace(), CosFace())
            for classes in (5, 5000)
        },
    }


def bytes_of_one_step(loss: Loss, num_classes: int) -> int:
    head = PartialFC(num_classes, 16, loss)
    head(torch.randn(6, 16, requires_grad=True), torch.arange(6) % num_classes).backward()
    assert head.stats is not None
    return head.stats.bytes_moved


def train_case(
    case: Case,
    rank: int,
    world_size: int,
    center_dtype: CenterDtype = "float32",
    center_memory: CenterMemory = "device",
) -> dict[str, Any]:
    head = PartialFC(
        case.num_classes,
        case.embedding_dim,
        case.loss,
        seed=3,
        tile_classes=case.tile_classes,
        sample_rate=case.sample_rate,
        center_dtype=center_dtype,
        center_memory=center_memory,
    )
    first_centers = head.centers.detach().clone()
    optimizer = CenterSGD(head, lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses, embedding_gradients, center_gradients, rows, stats, stored = [], [], [], [], [], []
    for step in range(case.steps):
        embeddings, identities, sizes = case.batch(step, world_size)
        stored.append(head.stored_centers.detach().clone())
        begin = sum(sizes[:rank])
        mine = slice(begin, begin + sizes[rank])
        local = embeddings[mine].clone().requires_grad_()
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        loss = head(local, identities[mine])
        loss.backward()
        losses.append(loss.item())
        embedding_gradients.append(local.grad)
        stats.append(dict(head.stats))
        center_gradients.append(head.center_gradient())
        taking_part = getattr(head.row_gradient, "rows", None)
        if not isinstance(taking_part, torch.Tensor):  # all of them
            taking_part = torch.arange(len(head.class_shard))
        rows.append(taking_part + head.class_shard.start)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "shard": (head.class_shard.start, head.class_shard.stop),
        "first_centers": first_centers,
        "center_gradients": center_gradients,
        "rows": rows,
        "losses": losses,
        "embedding_gradients": embedding_gradients,
        "centers": head.centers.detach(),
        "stored": [*stored, head.stored_centers.detach()],
        "stats": stats,
        "state": center_state(head, optimizer),
        "momentum": dense_momentum(head, optimizer),
    }


def dense_momentum(head: PartialFC, optimizer: CenterSGD) -> torch.Tensor:
    """torch.optim.SGD's momentum buffer of this rank's rows."""
    if head.rows is None:
        return optimizer.state[head.stored_centers]["momentum_buffer"]
    head.rows.make_plain()
    return head.rows.momentum(0, len(head.rows))


def train_dense(
    case: Case,
    world_size: int,
    dtype: torch.dtype,
    rows: Sequence[torch.Tensor] | None = None,
    weights: Sequence[torch.Tensor] | None = None,
) -> dict[str, Any]:
    """The same steps by autograd and torch.optim.SGD, one parameter per class, in one process.

    rows: per step, the global class ids that take part (None: all); weights: per step, theirs as negatives.
    """
    first_centers = PartialFC(case.num_classes, case.embedding_dim, seed=3).centers.detach().to(dtype)
    centers = [row.clone().requires_grad_() for row in first_centers]
    optimizer = torch.optim.SGD(centers, lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses, embedding_gradients, center_gradients = [], [], []
    for step in range(case.steps):
        embeddings, identities, _ = case.batch(step, world_size)
        taking_part = torch.arange(case.num_classes) if rows is None else rows[step]
        truth = embeddings.to(dtype).requires_grad_()
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        picked = torch.stack([centers[row] for row in taking_part.tolist()])
        remapped = torch.searchsorted(taking_part, identities)
        assert torch.equal(taking_part[remapped], identities), "every positive takes part"
        loss = case.dense_loss(truth, remapped, picked, None if weights is None else weights[step].to(dtype))
        loss.backward()
        losses.append(loss.item())
        embedding_gradients.append(truth.grad)
        center_gradients.append(
            torch.stack([torch.zeros_like(row) if row.grad is None else row.grad for row in centers])
        )
        optimizer.step()
        optimizer.zero_grad()
    return {
        "first_centers": first_centers,
        "losses": losses,
        "embedding_gradients": embedding_gradients,
        "center_gradients": center_gradients,
        "centers": torch.stack(centers).detach(),
    }


def negative_weights(case: Case, run: dict[str, Any], step: int, world_size: int) -> torch.Tensor:
    """Worked out anew from the rows of one rank: inverse probability of having been drawn."""
    start, stop = run["shard"]
    positives = set(case.batch(step, world_size)[1].tolist()) & set(range(start, stop))
    rows = run["rows"][step].tolist()
    assert positives <= set(rows)
    assert len(rows) == max(round(case.sample_rate * (stop - start)), len(positives))
    drawn = len(rows) - len(positives)
    weighted = isinstance(case.loss, SFace) and case.loss.sampled_negative_weight == "inverse" and drawn
    weight = (stop - start - len(positives)) / drawn if weighted else 1.0
    return torch.tensor([1.0 if row in positives else weight for row in rows], dtype=torch.float64)


def relative_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return ((found.double() - truth).norm() / truth.norm().clamp_min(1e-12)).item()


def assert_as_good_as_native(
    found: Sequence[torch.Tensor], native: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]
) -> None:
    """Each step no worse than a few times what plain float32 autograd loses against float64 in its worst step."""
    native_error = max(relative_error(*pair) for pair in zip(native, truth, strict=True))
    assert native_error < 1e-3, "the case is too chaotic to tell anything"
    for step, pair in enumerate(zip(found, truth, strict=True)):
        error = relative_error(*pair)
        assert error <= 6 * native_error + AMPLIFIED_ROUNDING, (step, error, native_error)


def assert_sharded_is_unsharded(
    case: Case, runs: Sequence[dict[str, Any]], truth: dict[str, Any], native: dict[str, Any]
) -> None:
    """runs: ``train_case`` of every rank; truth, native: ``train_dense`` in float64 and float32."""
    assert [run["shard"][0] for run in runs[1:]] == [run["shard"][1] for run in runs[:-1]]
    assert (runs[0]["shard"][0], runs[-1]["shard"][1]) == (0, case.num_classes)
    assert torch.equal(torch.cat([run["first_centers"] for run in runs]).double(), truth["first_centers"])
    for run in runs:
        assert run["losses"] == runs[0]["losses"], "every rank returns the loss of the global batch"
    first = [torch.cat([run["center_gradients"][0] for run in runs])]
    assert relative_error(first[0], truth["center_gradients"][0]) < 4e-6
    for key in ("embedding_gradients", "center_gradients"):
        found = [torch.cat([run[key][step] for run in runs]) for step in range(case.steps)]
        assert_as_good_as_native(found, native[key], truth[key])
    assert_as_good_as_native([torch.cat([run["centers"] for run in runs])], [native["centers"]], [truth["centers"]])
    series = [torch.tensor(each["losses"], dtype=torch.float64) for each in (runs[0], native, truth)]
    assert_as_good_as_native(*([each] for each in series))
