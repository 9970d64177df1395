"""Sharded = unsharded: SFace, world sizes 1 to 4 against the dense float64 reference, 20 steps of training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from head_training import (
    SFACE_CASES,
    Case,
    assert_as_good_as_native,
    assert_sharded_is_unsharded,
    dense_momentum,
    train_dense,
)

from partial_fc import CenterSGD, PartialFC, load_center_state
from partial_fc.reference import dense_sface

pytestmark = pytest.mark.distributed

Gang = Callable[[int], list[dict[str, Any]]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_sharded_training_equals_the_dense_reference(world_size: int, head_gang: Gang) -> None:
    ranks = head_gang(world_size)
    for index, case in enumerate(SFACE_CASES):
        runs = [rank["sface"][index] for rank in ranks]
        truth, native = (train_dense(case, world_size, dtype) for dtype in (torch.float64, torch.float32))
        assert_sharded_is_unsharded(case, runs, truth, native)
        for loss, stats in zip(runs[0]["losses"], runs[0]["stats"], strict=True):
            parts = stats["loss_intra"], stats["loss_inter"]
            assert loss == pytest.approx(sum(parts), abs=1e-5 * max(map(abs, parts)))


@pytest.mark.parametrize("world_size", [1, 3])
def test_loss_parts_are_those_of_the_first_batch(world_size: int, head_gang: Gang) -> None:
    for index, case in enumerate(SFACE_CASES):
        stats = head_gang(world_size)[0]["sface"][index]["stats"][0]
        truth, native = (_first_parts(case, world_size, dtype) for dtype in (torch.float64, torch.float32))
        found = torch.tensor([stats["loss_intra"], stats["loss_inter"]], dtype=torch.float64)
        assert_as_good_as_native([found], [native], [truth])


def _first_parts(case: Case, world_size: int, dtype: torch.dtype) -> torch.Tensor:
    embeddings, identities, _ = case.batch(0, world_size)
    centers = PartialFC(case.num_classes, case.embedding_dim, seed=3).centers.detach().to(dtype)
    return torch.stack(dense_sface(embeddings.to(dtype), identities, centers, case.loss)[1:])


@pytest.mark.parametrize("world_size", [2, 3])
def test_collective_bytes_do_not_grow_with_classes(world_size: int, head_gang: Gang) -> None:
    batch, dim = 6, 16
    head_bytes = batch * (4 * dim + 8) + 4 * batch * dim
    for rank in head_gang(world_size):
        small, large = rank["bytes"]["SFace", 5], rank["bytes"]["SFace", 5000]
        assert small == large
        assert head_bytes <= small <= head_bytes + 1280, "besides the two collectives only a few numbers travel"


def test_centers_and_momentum_reshard_by_global_class_id(head_gang: Gang) -> None:
    case = SFACE_CASES[3]
    runs = [rank["sface"][3] for rank in head_gang(3)]
    pieces = [run["state"] for run in runs]
    head = PartialFC(case.num_classes, case.embedding_dim, seed=99)
    optimizer = CenterSGD(head, lr=0.1)
    load_center_state(head, optimizer, pieces[::-1])
    assert torch.equal(head.centers.detach(), torch.cat([run["centers"] for run in runs]))
    assert torch.equal(dense_momentum(head, optimizer), torch.cat([run["momentum"] for run in runs]))
    assert head.steps_taken == case.steps
    with pytest.raises(ValueError, match="lack class 86: a file of the checkpoint is missing"):
        load_center_state(head, optimizer, [pieces[0], pieces[2]])
    with pytest.raises(ValueError, match="saved centers are 257 classes x 7"):
        load_center_state(PartialFC(258, 7), optimizer, pieces)
