"""What the head refuses, and its partition arithmetic."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import partial_fc
from partial_fc import ArcFace, CenterSGD, CombinedMargin, CosFace, PartialFC, SFace, class_shard, partition

pytestmark = pytest.mark.unit


def test_exported_names() -> None:
    contract = {"PartialFC", "SFace", "ArcFace", "CosFace", "CombinedMargin", "CenterSGD"}
    assert contract <= set(partial_fc.__all__)
    for name in partial_fc.__all__:
        assert hasattr(partial_fc, name)


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7, 176])
def test_partition_covers_everything_once_and_evenly(total: int, world_size: int) -> None:
    parts = [partition(total, world_size, rank) for rank in range(world_size)]
    assert [index for start, stop in parts for index in range(start, stop)] == list(range(total))
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) - min(sizes) <= 1


def test_partition_refuses_a_rank_outside_the_world() -> None:
    with pytest.raises(ValueError, match="rank 2 of 2"):
        partition(10, 2, 2)


def test_local_rows_keep_ids_beyond_float32() -> None:
    shard = class_shard(20_000_001, 2, 1)
    samples, rows = shard.local_rows(torch.tensor([16_777_216, 16_777_217, 5]))
    assert samples.tolist() == [0, 1]
    assert (rows + shard.start).tolist() == [16_777_216, 16_777_217]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes 0"),
        ({"embedding_dim": 0}, "embedding_dim 0"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"sample_rate": 0.0}, r"sample_rate .* in \(0, 1\], got 0.0"),
        ({"sample_rate": 1.1}, "sample_rate .* got 1.1"),
        ({"sample_rate": float("nan")}, "sample_rate .* got nan"),
        ({"loss": torch.nn.CrossEntropyLoss()}, "loss must be SFace, ArcFace, CosFace or CombinedMargin"),
    ],
)
def test_impossible_heads(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartialFC(**({"num_classes": 4, "embedding_dim": 3} | arguments))


@pytest.mark.parametrize(
    ("embeddings", "identities", "message"),
    [
        (torch.zeros(2, 4), torch.tensor([0, 1]), r"embeddings must be \[B, 3\]"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "int64"),
        (torch.zeros(2, 3), torch.tensor([0, 1], dtype=torch.int32), "int64"),
        (torch.zeros(2, 3), torch.tensor([0, 4]), r"identity 4 is outside \[0, 4\)"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "identity -1 is outside"),
        (torch.zeros(2, 3), torch.tensor([0]), "2 embeddings came with 1 identities"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "global batch is empty"),
    ],
)
def test_impossible_batches(embeddings: torch.Tensor, identities: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartialFC(4, 3)(embeddings, identities)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["scale", "slope", "a", "b"])
def test_impossible_losses(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        SFace(**{name: value})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SFace(sampled_negative_weight="half"), 'must be "inverse" or "none"'),
        (lambda: ArcFace(scale=0.0), "ArcFace scale must be a positive"),
        (lambda: ArcFace(margin=-0.1), "ArcFace margin m2"),
        (lambda: CosFace(margin=float("nan")), "CosFace margin m3"),
        (lambda: CombinedMargin(m1=0.0), "CombinedMargin m1"),
        (lambda: CombinedMargin(scale=float("inf")), "CombinedMargin scale"),
        (lambda: CosFace(interclass_filter=1.0), "use None to keep all negatives"),
        (lambda: CosFace(interclass_filter=float("nan")), "interclass_filter is a cosine"),
    ],
)
def test_impossible_losses_and_margins(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("argument", ["lr", "momentum", "weight_decay"])
def test_impossible_optimizers(argument: str) -> None:
    with pytest.raises(ValueError, match=f"CenterSGD {argument} must be at least 0, got -0.1"):
        CenterSGD(PartialFC(4, 3), **{argument: -0.1})
    with pytest.raises(ValueError, match="give other parameters their own optimizer"):
        CenterSGD(PartialFC(4, 3)).add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})


def test_load_centers_names_the_rows_it_needs() -> None:
    head = PartialFC(4, 3)
    head.load_centers(torch.ones(4, 3))
    assert torch.equal(head.centers.detach(), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"classes \[0, 4\) and needs centers \[4, 3\], got \[3, 3\]"):
        head.load_centers(torch.ones(3, 3))


def test_bfloat16_embeddings_are_scored_in_float32() -> None:
    head = PartialFC(4, 3)
    x = torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True)
    loss = head(x, torch.tensor([0, 3]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
