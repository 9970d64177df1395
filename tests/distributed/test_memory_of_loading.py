"""Loading a checkpoint takes the room that its numbers stay in and a chunk's more, also on another number of ranks."""

from pathlib import Path

import pytest
import torch
from gang import run_gang
from torch import nn
from training_on_ranks import center_momentum

from partial_fc import ArcFace, CenterSGD, PartialFC, SFace
from trainer.bench.peak_memory import peak_bytes, reset_peak, resident_bytes
from trainer.checkpoint import CheckpointSaver, Position, Retention, Trained, load_checkpoint, parts
from trainer.config import config_from
from trainer.memory import keep_freed_memory
from trainer.world import World

pytestmark = pytest.mark.distributed

CLASSES, DIM = 40_001, 1024  # 156 MiB of centers, and as much momentum
CHUNK_BYTES = 4 << 20  # of what is written here: as small beside these tables as 64 MiB is beside a million identities
TILE = 1024
LOSSES = {"motion": SFace(), "momentum of all rows": ArcFace()}


def new_trained(loss: str) -> Trained:
    backbone = nn.Linear(3, DIM)
    head = PartialFC(CLASSES, DIM, LOSSES[loss])
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    return Trained(backbone, optimizer, head, CenterSGD(head, lr=0.1, momentum=0.9, weight_decay=5e-4))


def in_full_motion(loss: str) -> Trained:
    """As late in a bad phase: every row has momentum."""
    trained = new_trained(loss)
    if trained.head.rows is None:
        buffer = torch.empty(CLASSES, DIM)
        trained.center_optimizer.state[trained.head.stored_centers]["momentum_buffer"] = buffer
        for begin in range(0, CLASSES, TILE):
            buffer[begin : begin + TILE] = momentum_of(begin)
        return trained
    trained.head.rows.begin_step(0.1, 0.9, 5e-4)
    for begin in range(0, CLASSES, TILE):
        trained.head.rows.set_momentum(begin, momentum_of(begin))
    return trained


def momentum_of(begin: int) -> torch.Tensor:
    rows = torch.arange(begin, min(begin + TILE, CLASSES), dtype=torch.float32)
    return (1.0 + rows)[:, None].expand(-1, DIM).contiguous()


def load(rank: int, world_size: int, checkpoint: Path, loss: str) -> tuple[float, bool]:
    """Peak beyond what there was before, as a share of the centers; and whether momentum came to its rows."""
    keep_freed_memory()
    world = World(rank, world_size, rank, torch.device("cpu"))
    for _ in range(2):  # the first time, also what a process loads once
        trained = new_trained(loss)
        assert reset_peak()
        before = resident_bytes()
        load_checkpoint(checkpoint, trained, world=world)
    share = (peak_bytes() - before) / trained.head.stored_centers.nbytes
    shard = trained.head.class_shard
    found = center_momentum(trained) if trained.head.rows is None else moving(trained)
    truth = (1.0 + torch.arange(shard.start, shard.stop))[:, None]
    return share, bool((found == truth).all())


def moving(trained: Trained) -> torch.Tensor:
    assert trained.head.rows is not None
    tables = trained.head.rows.tables
    return tables.momentum[tables.slots.long()]


@pytest.mark.parametrize(("loss", "ranks"), [("motion", (1, 2)), ("momentum of all rows", (2,))])
def test_one_table_and_a_chunk(
    loss: str, ranks: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "CHUNK_BYTES", CHUNK_BYTES)
    saving = World(0, 1, 0, torch.device("cpu"))
    config = config_from(
        {"run": {"output": str(tmp_path)}, "data": {"records": "train.rec"}, "train": {"steps": 9}}, "test"
    )
    saver = CheckpointSaver(tmp_path, config=config, world=saving, retention=Retention(1))
    (outcome,) = saver.save(in_full_motion(loss), Position(1, 8, {}), finish=True)
    assert outcome.error is None
    for world_size in ranks:
        found = run_gang(world_size, load, outcome.folder, loss, folder=tmp_path / f"gang_{world_size}")
        for share, is_right in found:
            assert is_right
            # The head's own centers are there before: what grows is momentum, and one chunk at a time.
            assert 1.0 < share < 1.5, f"{world_size} ranks: {share:.2f} tables"
