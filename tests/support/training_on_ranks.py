"""A few steps of a small model on some ranks, from the newest checkpoint in a folder to a new one there."""

from pathlib import Path
from typing import Any

import torch
from exact_head import ExactHead
from torch import nn

from partial_fc import CenterSGD, CosFace, PartialFC, SFace
from partial_fc.center_module import CenterDtype
from trainer.checkpoint import CheckpointSaver, Position, Retention, Trained, load_newest
from trainer.config import config_from
from trainer.engine import data_parallel
from trainer.world import World

CLASSES, DIM, SIZE, BATCH = 2203, 24, 8, 12
LOSSES = {"sface": SFace(b=1.45), "sface_dense": SFace(b=1.45), "cosface": CosFace()}
TOLERANCES = {"sface_dense": 0.0}  # every pair is scored
EXACT = {"exact_sface": SFace(b=1.45), "exact_cosface": CosFace(scale=16.0)}  # in float64


def backbone() -> nn.Module:
    """Normalisation that does not depend on how the global batch is split."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, DIM))


def new_trained(loss: str, classes: int = CLASSES, center_dtype: CenterDtype = "float32") -> Trained:
    module = backbone()
    if loss in EXACT:
        module = module.double()
        exact = ExactHead(classes, DIM, EXACT[loss])
        return Trained(
            module,
            torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9),
            exact,
            torch.optim.SGD([exact.stored_centers], lr=0.02, momentum=0.9, weight_decay=1e-3),
        )
    head = PartialFC(classes, DIM, LOSSES[loss], tolerance=TOLERANCES.get(loss, 1e-3), center_dtype=center_dtype)
    return Trained(
        module,
        torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9),
        head,
        CenterSGD(head, lr=0.02, momentum=0.9, weight_decay=1e-3),
    )


def global_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    identities = torch.randint(CLASSES, (BATCH,), generator=draw)
    patterns = torch.randn(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    return patterns[identities] + 0.3 * torch.randn(BATCH, 3, SIZE, SIZE, generator=draw), identities


def train_steps(trained: Trained, world: World, steps: range) -> list[str]:
    network = data_parallel(trained.backbone, world, image_size=SIZE)
    rows = slice(BATCH * world.rank // world.world_size, BATCH * (world.rank + 1) // world.world_size)
    modes = []
    for step in steps:
        images, identities = (each[rows] for each in global_batch(step))
        trained.head(network(images.to(next(trained.backbone.parameters()).dtype)), identities).backward()
        for optimizer in (trained.backbone_optimizer, trained.center_optimizer):
            optimizer.step()
            optimizer.zero_grad()
        assert trained.head.stats is not None
        modes.append(trained.head.stats.mode)
    return modes


def continue_run(rank: int, world_size: int, folder: Path, loss: str, steps: int) -> dict[str, Any]:
    """Load what is there, take ``steps`` steps, save beside one step more."""
    world = World(rank, world_size, rank, torch.device("cpu"))
    trained = new_trained(loss)
    position, damages = load_newest(folder, trained, world=world, seed=0)
    begin = position.step if position else 0
    drawn = torch.rand(3)
    unseen = trained.head.seen.unseen
    modes = train_steps(trained, world, range(begin, begin + steps))
    after = Position(begin + steps, (begin + steps) * BATCH, {"epoch": 0, "samples": 0})
    config = config_from(
        {"run": {"output": str(folder)}, "data": {"records": "train.rec"}, "train": {"steps": 99}}, "test"
    )
    folder.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(folder, config=config, world=world, retention=Retention(9))
    saver.save(trained, after)
    found = {"centers": trained.head.centers.detach().clone(), "backbone": flat(trained)}
    found["unseen"] = (unseen, trained.head.seen.unseen)
    found["momentum"] = center_momentum(trained)  # after the centers were read: all rows are at now
    # One step more, for momentum: it is nine tenths of where everything goes. The checkpoint is written meanwhile.
    train_steps(trained, world, range(begin + steps, begin + steps + 1))
    found |= {
        "centers_next": trained.head.centers.detach() - found["centers"],
        "backbone_next": flat(trained) - found["backbone"],
    }
    (outcome,) = saver.wait()
    assert outcome.error is None, outcome.error
    return found | {"begin": begin, "damages": damages, "modes": modes, "drawn": drawn}


def center_momentum(trained: Trained) -> torch.Tensor:
    """[R, D], torch.optim.SGD's momentum buffer of this rank's centers; all 0 before the first step."""
    head = trained.head
    if head.rows is not None:
        return head.rows.momentum(0, len(head.class_shard))
    found = trained.center_optimizer.state[head.stored_centers].get("momentum_buffer")
    return torch.zeros_like(head.stored_centers) if found is None else found.clone()


def flat(trained: Trained) -> torch.Tensor:
    """All weights of the backbone."""
    return torch.cat([each.detach().flatten() for each in trained.backbone.parameters()])


def continue_runs(rank: int, world_size: int, folder: Path, steps: int) -> dict[str, Any]:
    """:func:`continue_run` for every loss, in folders of their own."""
    return {loss: continue_run(rank, world_size, folder / loss, loss, steps) for loss in (*LOSSES, *EXACT)}
