"""Training with centers in bfloat16 on any number of ranks, always on the same global batches."""

from typing import Any

import torch
from face_geometry import STEADY, Faces

from partial_fc import CenterSGD, CosFace, PartialFC, SFace, center_state, load_center_state, partition

CLASSES, DIM, BATCH, STEPS = 2203, 290, 12, 9
LOSSES = {"sface": SFace(), "cosface": CosFace()}


def rounded_training(rank: int, world_size: int) -> dict[str, Any]:
    """By loss: this rank's table after STEPS steps, its piece to save before the last three, and the modes of steps."""
    found: dict[str, Any] = {}
    for name, loss in LOSSES.items():
        faces = Faces(STEADY, CLASSES, DIM)
        head = PartialFC(CLASSES, DIM, loss, center_dtype="bfloat16", seed=4)
        head.load_centers(faces.centers[head.class_shard.start : head.class_shard.stop])
        optimizer = CenterSGD(head, lr=0.1)
        batches = [faces.batch(faces.centers, BATCH) for _ in range(STEPS)]
        piece, modes = {}, []
        for step, batch in enumerate(batches):
            if step == STEPS - 3:
                piece = {
                    key: value.clone() if isinstance(value, torch.Tensor) else value
                    for key, value in center_state(head, optimizer).items()
                }
                if piece["motion"] is not None:
                    piece["motion"] = {
                        key: value.clone() if isinstance(value, torch.Tensor) else value
                        for key, value in piece["motion"].items()
                    }
            take_step(head, optimizer, batch, rank, world_size)
            assert head.stats is not None
            modes.append(head.stats.mode)
        found[name] = {"table": head.stored_centers.detach(), "piece": piece, "modes": modes}
    return found


def take_step(
    head: PartialFC, optimizer: CenterSGD, batch: tuple[torch.Tensor, torch.Tensor], rank: int, world_size: int
) -> None:
    """This rank's part of a global batch."""
    mine = slice(*partition(len(batch[1]), world_size, rank))
    head(batch[0][mine].clone().requires_grad_(), batch[1][mine]).backward()
    optimizer.step()
    optimizer.zero_grad()


def gone_on_alone(pieces: list[dict[str, Any]], name: str) -> torch.Tensor:
    """The table of one rank that loads ``pieces`` and takes the last three steps."""
    faces = Faces(STEADY, CLASSES, DIM)
    head = PartialFC(CLASSES, DIM, LOSSES[name], center_dtype="bfloat16", seed=4)
    optimizer = CenterSGD(head, lr=0.1)
    load_center_state(head, optimizer, pieces)
    for batch in [faces.batch(faces.centers, BATCH) for _ in range(STEPS)][-3:]:
        take_step(head, optimizer, batch, 0, 1)
    return head.stored_centers.detach()
