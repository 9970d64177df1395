"""Sharded = unsharded: world sizes 1 to 4 against the dense float64 reference, 20 steps of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from gang import run_gang

from partial_fc import CenterSGD, PartialFC, SFace, center_state, load_center_state
from partial_fc.reference import dense_sface

pytestmark = pytest.mark.distributed

STEPS = 20
# dL/dtheta has slope 80: each step turns half an ulp of a cosine into up to 80/4 of it, and steps add up.
AMPLIFIED_ROUNDING = STEPS * (80 / 4) * 2.0**-24


@dataclass(frozen=True)
class Case:
    num_classes: int
    embedding_dim: int
    last_batch: tuple[int, ...]  # samples of ranks 0..3 in the last step
    tile_classes: int
    shared_direction: float  # how much all embeddings share a direction: many active pairs

    def batch(self, step: int, world_size: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Global embeddings, identities and the sizes per rank."""
        generator = torch.Generator().manual_seed(1000 * self.num_classes + step)
        sizes = list(self.last_batch[:world_size]) if step == STEPS - 1 else [5] * world_size
        rows = sum(sizes)
        direction = torch.randn(1, self.embedding_dim, generator=generator) * self.shared_direction
        embeddings = torch.randn(rows, self.embedding_dim, generator=generator) + direction
        return embeddings, torch.randint(self.num_classes, (rows,), generator=generator), sizes


CASES = [
    Case(num_classes=1, embedding_dim=4, last_batch=(3, 1, 2, 5), tile_classes=8, shared_direction=0.0),
    Case(num_classes=3, embedding_dim=8, last_batch=(1, 4, 0, 2), tile_classes=2, shared_direction=0.0),
    Case(num_classes=10, embedding_dim=16, last_batch=(5, 5, 5, 5), tile_classes=3, shared_direction=1.0),
    Case(num_classes=257, embedding_dim=7, last_batch=(2, 0, 1, 0), tile_classes=50, shared_direction=3.0),
    Case(num_classes=1031, embedding_dim=32, last_batch=(7, 3, 1, 2), tile_classes=8192, shared_direction=0.0),
]


def learning_rate(step: int) -> float:
    return 0.1 if step < 12 else 0.01


def train_sharded(rank: int, world_size: int) -> list[dict[str, Any]]:
    return [_train_case(case, rank, world_size) for case in CASES]


def _train_case(case: Case, rank: int, world_size: int) -> dict[str, Any]:
    head = PartialFC(case.num_classes, case.embedding_dim, SFace(), seed=3, tile_classes=case.tile_classes)
    first_centers = head.centers.detach().clone()
    optimizer = CenterSGD(head, lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses, embedding_gradients, stats = [], [], []
    first_gradient = torch.empty(0)
    for step in range(STEPS):
        embeddings, identities, sizes = case.batch(step, world_size)
        begin = sum(sizes[:rank])
        mine = slice(begin, begin + sizes[rank])
        local = embeddings[mine].clone().requires_grad_()
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        loss = head(local, identities[mine])
        loss.backward()
        losses.append(loss.item())
        embedding_gradients.append(local.grad)
        stats.append(dict(head.stats))
        if step == 0:
            first_gradient = head.centers.grad.clone()
        optimizer.step()
        optimizer.zero_grad()
    state = center_state(head, optimizer)
    return {
        "shard": (head.class_shard.start, head.class_shard.stop),
        "first_centers": first_centers,
        "first_gradient": first_gradient,
        "losses": losses,
        "embedding_gradients": embedding_gradients,
        "centers": head.centers.detach(),
        "stats": stats,
        "state": state,
    }


def train_dense(case: Case, world_size: int, dtype: torch.dtype) -> dict[str, Any]:
    """The same steps by autograd and torch.optim.SGD in one process."""
    centers = PartialFC(case.num_classes, case.embedding_dim, seed=3).centers.detach().to(dtype).requires_grad_()
    first_centers = centers.detach().clone()
    optimizer = torch.optim.SGD([centers], lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses, embedding_gradients, parts = [], [], []
    first_gradient = torch.empty(0)
    for step in range(STEPS):
        embeddings, identities, _ = case.batch(step, world_size)
        truth = embeddings.to(dtype).requires_grad_()
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        loss, intra, inter = dense_sface(truth, identities, centers, SFace())
        loss.backward()
        losses.append(loss.item())
        parts.append(torch.stack([intra, inter]).detach())
        embedding_gradients.append(truth.grad)
        if step == 0:
            first_gradient = centers.grad.clone()
        optimizer.step()
        optimizer.zero_grad()
    return {
        "first_centers": first_centers,
        "first_gradient": first_gradient,
        "losses": losses,
        "parts": parts,
        "embedding_gradients": embedding_gradients,
        "centers": centers.detach(),
    }


def relative_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return ((found.double() - truth).norm() / truth.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_sharded_training_equals_the_dense_reference(world_size: int, tmp_path: Path) -> None:
    ranks = run_gang(world_size, train_sharded, folder=tmp_path / "gang")
    for index, case in enumerate(CASES):
        runs = [rank[index] for rank in ranks]
        truth = train_dense(case, world_size, torch.float64)
        native = train_dense(case, world_size, torch.float32)
        assert [run["shard"][0] for run in runs[1:]] == [run["shard"][1] for run in runs[:-1]]
        assert (runs[0]["shard"][0], runs[-1]["shard"][1]) == (0, case.num_classes)
        joined = {key: torch.cat([run[key] for run in runs]) for key in ("first_centers", "first_gradient", "centers")}
        assert torch.equal(joined["first_centers"].double(), truth["first_centers"])
        assert relative_error(joined["first_gradient"], truth["first_gradient"]) < 2e-6
        assert_as_good_as_native([joined["centers"]], [native["centers"]], [truth["centers"]])
        for run in runs:
            assert run["losses"] == runs[0]["losses"], "every rank returns the loss of the global batch"
        found_gradients = [torch.cat([run["embedding_gradients"][step] for run in runs]) for step in range(STEPS)]
        assert_as_good_as_native(found_gradients, native["embedding_gradients"], truth["embedding_gradients"])
        parts = [torch.tensor([stats["loss_intra"], stats["loss_inter"]]) for stats in runs[0]["stats"]]
        assert_as_good_as_native(*([torch.stack(series)] for series in (parts, native["parts"], truth["parts"])))
        for loss, part in zip(runs[0]["losses"], parts, strict=True):
            assert loss == pytest.approx(part.sum().item(), abs=1e-5 * part.abs().max().item())


def assert_as_good_as_native(
    found: Sequence[torch.Tensor],
    native: Sequence[torch.Tensor],
    truth: Sequence[torch.Tensor],
) -> None:
    """Each step no worse than a few times what plain float32 autograd loses against float64 in its worst step."""
    native_error = max(relative_error(*pair) for pair in zip(native, truth, strict=True))
    assert native_error < 1e-3, "the case is too chaotic to tell anything"
    for step, pair in enumerate(zip(found, truth, strict=True)):
        assert relative_error(*pair) <= 6 * native_error + AMPLIFIED_ROUNDING, (
            step,
            relative_error(*pair),
            native_error,
        )


@pytest.mark.parametrize("world_size", [2, 3])
def test_collective_bytes_do_not_grow_with_classes(world_size: int, tmp_path: Path) -> None:
    for run_small, run_large in zip(*_runs_of_two_sizes(world_size, tmp_path), strict=True):
        assert run_small == run_large
        batch, dim = 6, 16
        head_bytes = batch * (4 * dim + 8) + 4 * batch * dim
        assert head_bytes <= run_small <= head_bytes + 128, "besides the two collectives only a few scalars travel"


def _runs_of_two_sizes(world_size: int, tmp_path: Path) -> tuple[list[int], list[int]]:
    small = run_gang(world_size, bytes_of_one_step, 5, folder=tmp_path / "small")
    return small, run_gang(world_size, bytes_of_one_step, 5000, folder=tmp_path / "large")


def bytes_of_one_step(rank: int, world_size: int, num_classes: int) -> int:
    head = PartialFC(num_classes, 16)
    loss = head(torch.randn(6, 16, requires_grad=True), torch.arange(6) % num_classes)
    loss.backward()
    assert head.stats is not None
    return head.stats.bytes_moved


def save_pieces(rank: int, world_size: int) -> Any:
    return _train_case(CASES[3], rank, world_size)["state"]


def test_centers_and_momentum_reshard_by_global_class_id(tmp_path: Path) -> None:
    pieces = run_gang(3, save_pieces, folder=tmp_path / "three")
    case = CASES[3]
    head = PartialFC(case.num_classes, case.embedding_dim, seed=99)
    optimizer = CenterSGD(head, lr=0.1)
    load_center_state(head, optimizer, pieces[::-1])
    assert torch.equal(head.centers.detach(), torch.cat([piece["centers"] for piece in pieces]))
    momentum = optimizer.state[head.centers]["momentum_buffer"]
    assert torch.equal(momentum, torch.cat([piece["momentum"] for piece in pieces]))
    with pytest.raises(ValueError, match="lack class 86: a file of the checkpoint is missing"):
        load_center_state(head, optimizer, [pieces[0], pieces[2]])
    with pytest.raises(ValueError, match="saved centers are 257 classes x 7"):
        load_center_state(PartialFC(258, 7), optimizer, pieces)
