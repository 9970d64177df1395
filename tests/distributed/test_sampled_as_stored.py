"""Sampled steps with centers in bfloat16 and in host memory, world sizes 1 to 4.

A draw belongs to the shard: other ranks draw other rows, and tables of different world sizes differ. What must hold at
any of them: each step is that of the dense reference over the drawn rows, from the centers as they are stored.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from head_training import AMPLIFIED_ROUNDING, SAMPLED_CASES, Case, learning_rate, negative_weights, relative_error

pytestmark = pytest.mark.distributed

Gang = Callable[[int], list[dict[str, Any]]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_host_memory_changes_nothing(world_size: int, head_gang: Gang) -> None:
    """Bit for bit: losses, both gradients, and every table after every step."""
    for rank in head_gang(world_size):
        stored = rank["sampled as stored"]
        pairs = [
            (rank["sampled"], stored["float32", "host"]),
            (stored["bfloat16", "device"], stored["bfloat16", "host"]),
        ]
        for of_device, of_host in pairs:
            for case, here, there in zip(SAMPLED_CASES, of_device, of_host, strict=True):
                assert here["losses"] == there["losses"], case
                for key in ("embedding_gradients", "center_gradients", "stored"):
                    assert all(torch.equal(*each) for each in zip(here[key], there[key], strict=True)), (case, key)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_a_step_from_bfloat16_is_that_of_the_dense_reference(world_size: int, head_gang: Gang) -> None:
    for index, case in enumerate(SAMPLED_CASES):
        runs = [rank["sampled as stored"]["bfloat16", "host"][index] for rank in head_gang(world_size)]
        momentum: torch.Tensor | float = 0.0
        for step in range(case.steps):
            found = {
                "loss": torch.tensor(runs[0]["losses"][step]),
                "embeddings": torch.cat([run["embedding_gradients"][step] for run in runs]),
                "centers": torch.cat([run["center_gradients"][step] for run in runs]),
            }
            assert all(run["losses"][step] == runs[0]["losses"][step] for run in runs)
            before, after = (torch.cat([run["stored"][at] for run in runs]) for at in (step, step + 1))
            assert before.dtype == torch.bfloat16
            truth, native = (dense_step(case, runs, step, before.to(dtype)) for dtype in (torch.float64, torch.float32))
            for name, value in found.items():
                limit = 6 * relative_error(native[name], truth[name]) + AMPLIFIED_ROUNDING
                assert relative_error(value, truth[name]) <= limit, (case, step, name)
            momentum = check_update(case, runs, step, found["centers"], momentum, before, after)


def dense_step(case: Case, runs: list[dict[str, Any]], step: int, stored: torch.Tensor) -> dict[str, torch.Tensor]:
    """Loss and gradients over the rows that were drawn, by autograd."""
    embeddings, identities, _ = case.batch(step, len(runs))
    rows = torch.cat([run["rows"][step] for run in runs])
    weights = torch.cat([negative_weights(case, run, step, len(runs)) for run in runs]).to(stored.dtype)
    x, centers = embeddings.to(stored.dtype).requires_grad_(), stored.clone().requires_grad_()
    loss = case.dense_loss(x, torch.searchsorted(rows, identities), centers[rows], weights)
    loss.backward()
    assert x.grad is not None and centers.grad is not None
    return {"loss": loss.detach(), "embeddings": x.grad, "centers": centers.grad}


def check_update(
    case: Case,
    runs: list[dict[str, Any]],
    step: int,
    gradient: torch.Tensor,
    momentum: torch.Tensor | float,
    before: torch.Tensor,
    after: torch.Tensor,
) -> torch.Tensor:
    """Rows that rest stay as they are, all others go where torch.optim.SGD goes, to a neighbour in bfloat16."""
    drawn = torch.zeros(case.num_classes, 1, dtype=torch.bool)
    drawn[torch.cat([run["rows"][step] for run in runs])] = True
    assert torch.equal(after[~drawn.squeeze(1)], before[~drawn.squeeze(1)])
    weights = before.double()
    moving = 0.9 * momentum + gradient.double() + 5e-4 * weights
    wanted = torch.where(drawn, weights - learning_rate(step) * moving, weights)
    assert ((after.double() - wanted).abs() <= 2.0**-7 * wanted.abs() + 1e-6).all(), (case, step)
    return torch.where(drawn, moving, torch.as_tensor(momentum, dtype=torch.float64))
