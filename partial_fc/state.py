"""Centers and their momentum as saved: keyed by global class id, so any world size can read them back.

Shape letters: R rows of one piece, D embedding size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from partial_fc.center_loading import check_fit
from partial_fc.center_sgd import CenterSGD
from partial_fc.head import PartialFC
from partial_fc.motion_state import load_motion, motion_state

Piece = dict[str, Any]


def center_state(head: PartialFC, optimizer: CenterSGD) -> Piece:
    """This rank's piece: start, stop, num_classes, embedding_dim, steps_taken, control (of the cut), centers [R, D] as
    stored, float32 or bfloat16, and either momentum [R, D] or None, or motion: see
    :func:`partial_fc.motion_state.motion_state`.

    The tensors are the head's own, not copies: save them before the next step. Nothing is brought up to date for it,
    so a run that saves goes on bit for bit like one that does not; the common scale is in ``motion``.
    """
    centers = head.stored_centers
    return {
        "start": head.class_shard.start,
        "stop": head.class_shard.stop,
        "num_classes": head.num_classes,
        "embedding_dim": head.embedding_dim,
        "steps_taken": head.steps_taken,
        "control": head.control.state(),
        "centers": centers.detach(),
        "momentum": optimizer.state[centers].get("momentum_buffer"),
        "motion": None if head.rows is None else motion_state(head.rows, head.class_shard),
    }


@torch.no_grad()
def load_center_state(head: PartialFC, optimizer: CenterSGD, pieces: Sequence[Piece]) -> None:
    """Fill this rank's rows, and the count of steps taken, from pieces written by any number of ranks, in any order.

    Centers keep the precision that both have: saved in float32 they go to the nearest in a bfloat16 head.

    Raises ValueError, naming the gap, when the pieces do not belong to this head or do not cover its classes.
    """
    motions = [piece["motion"] for piece in pieces]
    for piece in pieces:
        has_motion = piece["motion"] is not None
        check_fit(head, piece["num_classes"], piece["embedding_dim"], has_motion=has_motion)
    if not pieces:
        raise ValueError("no saved centers were given")
    _take(head, pieces, "centers", head.stored_centers)
    head.steps_taken = max(int(piece["steps_taken"]) for piece in pieces)
    head.control.load_state(pieces[0]["control"])
    if head.rows is not None:
        load_motion(head.rows, head.class_shard, motions)
    if any(piece["momentum"] is not None for piece in pieces):
        kept = head.stored_centers
        momentum = torch.zeros_like(kept, dtype=torch.float32 if kept.dtype == torch.bfloat16 else kept.dtype)
        _take(head, pieces, "momentum", momentum)
        optimizer.state[head.stored_centers]["momentum_buffer"] = momentum
    else:
        optimizer.state.pop(head.stored_centers, None)


def _take(head: PartialFC, pieces: Sequence[Piece], key: str, into: Tensor) -> None:
    """Fill ``into`` [R, D], whatever type the pieces have; nothing is changed where they do not cover it."""
    shard = head.class_shard
    covered = torch.zeros(len(shard), dtype=torch.bool)
    parts = []
    for piece in pieces:
        begin, end = max(piece["start"], shard.start), min(piece["stop"], shard.stop)
        if begin >= end:
            continue
        covered[begin - shard.start : end - shard.start] = True
        source = piece[key]
        if source is not None:
            parts.append((begin, end, source[begin - piece["start"] : end - piece["start"]]))
    if not bool(covered.all()):
        missing = shard.start + int((~covered).nonzero()[0])
        raise ValueError(f"saved {key} lack class {missing}: a file of the checkpoint is missing")
    for begin, end, rows in parts:
        into[begin - shard.start : end - shard.start] = rows
