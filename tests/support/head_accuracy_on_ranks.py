"""What each rank does for the accuracy tests of the sharded head.

Shape letters: C classes, D embedding size, N global batch.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from face_geometry import COLLAPSE, SHARED, STEADY, Faces, Phase
from head_accuracy import DenseTwin
from sgd_pair import HEAVY, LATE, ONCE, Pair
from torch import Tensor

from partial_fc import CenterSGD, PartialFC, center_state, load_center_state

CLASSES, DIM, STEPS = 4507, 280, 10  # 4507 is prime: no world size divides it
TOLERANCES = (1e-3, 1e-5)
PHASES = (STEADY, COLLAPSE, SHARED)
CASES = [(phase, tolerance) for phase in PHASES for tolerance in TOLERANCES]
WRITERS = 3  # ranks whose center_state all others read
MORE_STEPS = 6


def settings_of(phase: Phase) -> dict[str, float]:
    """At a learning rate of 0.1 a collapse would last one step."""
    return {"lr": 1e-3 if phase is COLLAPSE else 0.1, "momentum": 0.9, "weight_decay": 5e-4}


def batch_sizes(step: int, world_size: int) -> list[int]:
    """Samples of each rank: uneven, and none on one rank in some steps."""
    sizes = [5 + (7 * rank + 11 * step) % 23 for rank in range(world_size)]
    if step % 3 == 1:
        sizes[step % world_size] = 0
    return sizes


def global_batches(phase: Phase, world_size: int) -> tuple[Tensor, list[tuple[Tensor, Tensor, list[int]]]]:
    """The centers [C, D] at the start, and per step embeddings [N, D], identities [N] and sizes per rank."""
    faces = Faces(phase, CLASSES, DIM, seed=world_size)
    sizes = [batch_sizes(step, world_size) for step in range(STEPS)]
    return faces.centers, [(*faces.batch(faces.centers, sum(each)), each) for each in sizes]


def train(phase: Phase, tolerance: float, rank: int, world_size: int) -> dict[str, Any]:
    """STEPS steps of one case: this rank's part of everything that is compared."""
    centers, batches = global_batches(phase, world_size)
    head = PartialFC(CLASSES, DIM, tolerance=tolerance)
    head.load_centers(centers[head.class_shard.start : head.class_shard.stop])
    optimizer = CenterSGD(head, **settings_of(phase))
    losses, embedding_gradients, center_gradients, stats = [], [], [], []
    for embeddings, identities, sizes in batches:
        mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        local = embeddings[mine].clone().requires_grad_()
        loss = head(local, identities[mine])
        loss.backward()
        losses.append(loss.item())
        embedding_gradients.append(local.grad)
        center_gradients.append(only_rows(head.center_gradient()))
        stats.append(head.stats)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "losses": losses,
        "embedding_gradients": embedding_gradients,
        "center_gradients": center_gradients,
        "stats": stats,
        "centers": head.centers.detach(),
        "first_row": head.class_shard.start,
    }


def only_rows(gradient: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows that have a gradient, and theirs: a screened one travels as little."""
    assert gradient is not None
    rows = gradient.count_nonzero(dim=1).nonzero().squeeze(1)
    return rows, gradient[rows]


def all_rows(parts: Iterable[tuple[Tensor, Tensor]], first_rows: Iterable[int]) -> Tensor:
    """[C, D]: what ``only_rows`` took of each rank's shard, put back; first_rows: where each shard starts."""
    whole = torch.zeros(CLASSES, DIM)
    for (rows, values), first in zip(parts, first_rows, strict=True):
        whole[rows + first] = values
    return whole


def write_pieces(rank: int, world_size: int, folder: Path) -> None:
    """Train and save this rank's centers and momentum while many rows rest; beside them what torch.optim.SGD holds."""
    pair = Pair(HEAVY, slice(rank, None, world_size))
    pair.steps(4, LATE)
    pair.steps(4, ONCE)
    torch.save(center_state(pair.head, pair.optimizer), folder / f"piece{rank}.pt")
    twins = [(twin.now, twin.optimizer.state[twin.centers]["momentum_buffer"]) for twin in pair.twins]
    torch.save(twins, folder / f"twins{rank}.pt")
    pair.check()


def go_on_from_pieces(rank: int, world_size: int, folder: Path) -> None:
    """Load the pieces of WRITERS ranks and train on, beside torch.optim.SGD that goes on too."""
    pair = Pair(HEAVY, slice(rank, None, world_size))
    pair.steps(2, LATE)  # what a receiver held must be forgotten
    pieces = [torch.load(folder / f"piece{writer}.pt", weights_only=True) for writer in range(WRITERS)]
    load_center_state(pair.head, pair.optimizer, pieces[::-1])
    saved = [torch.load(folder / f"twins{writer}.pt", weights_only=True) for writer in range(WRITERS)]
    shard = pair.head.class_shard
    for index, dtype in enumerate((torch.float64, torch.float32)):
        centers, momentum = (
            torch.cat([twins[index][part] for twins in saved])[shard.start : shard.stop] for part in (0, 1)
        )
        twin = DenseTwin.of(centers, HEAVY, dtype)
        twin.optimizer.state[twin.centers]["momentum_buffer"] = momentum.clone()
        pair.twins[index] = twin
    pair.check()
    pair.step_number = 8
    pair.steps(MORE_STEPS)
    pair.steps(MORE_STEPS, LATE)
    pair.check()


def everything_on_one_rank(rank: int, world_size: int, folder: Path) -> list[dict[str, Any]]:
    """All cases, so that the processes of a world size start once."""
    if world_size == WRITERS:
        write_pieces(rank, world_size, folder)
    else:
        go_on_from_pieces(rank, world_size, folder)
    return [train(phase, tolerance, rank, world_size) for phase, tolerance in CASES]
