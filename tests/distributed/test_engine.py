"""The data-parallel backbone: gradients are sums over ranks, and making it leaves no trace."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gang import run_gang
from torch import nn

from partial_fc import PartialFC
from trainer.agreement import PeerFailedError, any_rank, first_rank_decides, together
from trainer.engine import data_parallel, share_buffers
from trainer.errors import ConfigError
from trainer.world import World

pytestmark = pytest.mark.distributed

DIM, SIZE, CLASSES = 8, 32, 11


def network() -> nn.Sequential:
    torch.manual_seed(5)
    # No batch norm: it sees local batches only, so sharded and unsharded gradients would differ by design.
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.PReLU(), nn.Flatten(), nn.Linear(64, DIM))


def batch(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 3, SIZE, SIZE, generator=generator)
    return images[rows], torch.randint(CLASSES, (12,), generator=generator)[rows]


def gradients(backbone: nn.Module, rows: slice) -> dict[str, torch.Tensor]:
    head = PartialFC(CLASSES, DIM)
    images, identities = batch(rows)
    head(backbone(images), identities).backward()
    return {name.removeprefix("module."): p.grad.clone() for name, p in backbone.named_parameters()}


def all_cases(rank: int, world_size: int) -> dict[str, Any]:
    world = World(rank, world_size, rank, torch.device("cpu"))
    with_norm = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    with_norm.append(nn.Linear(64, DIM))
    before = {key: value.clone() for key, value in with_norm.state_dict().items()}
    random_state = torch.get_rng_state()
    data_parallel(with_norm, world, image_size=SIZE)
    untouched = torch.equal(random_state, torch.get_rng_state()) and all(
        parameter.grad is None or not parameter.grad.any() for parameter in with_norm.parameters()
    )
    if rank == 0:  # other ranks take rank 0's weights
        untouched = untouched and all(torch.equal(value, before[key]) for key, value in with_norm.state_dict().items())
    with_norm[1].running_mean.fill_(rank + 1.0)
    share_buffers(with_norm, world)
    cuts = [*[0, 3, 7, 12, 12][:world_size], 12]
    return {
        "gradients": gradients(data_parallel(network(), world, image_size=SIZE), slice(cuts[rank], cuts[rank + 1])),
        "untouched": untouched,
        "running_mean": with_norm[1].running_mean.tolist(),
        "agreement": agreement(world),
    }


def agreement(world: World) -> dict[str, Any]:
    def decide() -> str:
        assert world.is_first, "only rank 0 may run it"
        return "chosen"

    def refuse() -> None:
        raise ConfigError("rank 0 says no")

    def fail_on_last() -> None:
        if world.rank == world.world_size - 1:
            raise OSError("disk full")

    answers: dict[str, Any] = {"decision": first_rank_decides(world, decide)}
    try:
        first_rank_decides(world, refuse)
    except ConfigError as error:
        answers["refusal"] = str(error)
    try:
        together(world, fail_on_last, "test")
    except (PeerFailedError, OSError) as error:
        answers["together"] = type(error).__name__
    answers["any"] = any_rank(world, world.rank == 1)
    answers["none"] = any_rank(world, False)
    return answers


@pytest.mark.parametrize("world_size", [2, 3])
def test_data_parallel_backbone(world_size: int, tmp_path: Path) -> None:
    ranks = run_gang(world_size, all_cases, folder=tmp_path / "gang")
    truth = gradients(network(), slice(0, 12))
    for rank, found in enumerate(ranks):
        for name, gradient in truth.items():
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-5)
        assert found["untouched"]
        assert found["running_mean"] == [1.0] * 4
        last = rank == world_size - 1
        assert found["agreement"] == {
            "decision": "chosen",
            "refusal": "rank 0 says no",
            "together": "OSError" if last else "PeerFailedError",
            "any": True,
            "none": False,
        }
