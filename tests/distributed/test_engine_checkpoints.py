"""A run moves from any engine to any other and to other numbers of ranks; within one it goes on bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_reading import assert_identical, everything
from engine_training import (
    ADAMW,
    CLASSES,
    DIM,
    SGD,
    Learned,
    Training,
    build,
    difference,
    flat,
    learned,
    network,
    take_steps,
    train,
    world_of,
)
from gang import run_gang

from partial_fc.class_shard import class_shard
from partial_fc.initial_centers import initial_centers
from trainer.checkpoint import Position, load_newest, read_weights, save_checkpoint
from trainer.config import config_from
from trainer.world import World

pytestmark = pytest.mark.distributed

EACH = 2
ZEROS = (None, 0, 1, 2, 3)
OPTIMIZERS = {"sgd": SGD, "adamw": ADAMW}
# Engine by engine on two ranks, then three, one and two.
STAGES = ((2, (None, 3, 1, 0, 2)), (3, (3, None)), (1, (1, 3)), (2, (None,)))
TOTAL = EACH * sum(len(zeros) for _, zeros in STAGES)


def save_and_leave(folder: Path, training: Training, world: World, steps: int) -> Learned:
    """``steps`` more steps of the run in ``folder``, and a checkpoint."""
    trained, engine = build(training, world)
    position, damages = load_newest(folder, trained, world=world, seed=0)
    assert not damages
    begin = position.step if position else 0
    results = take_steps(trained, engine, world, training, range(begin, begin + steps))
    config = config_from(
        {"run": {"output": str(folder)}, "data": {"records": "train.rec"}, "train": {"steps": 99}}, "test"
    )
    after = Position(begin + steps, 0, {"epoch": 0, "samples": 0})
    save_checkpoint(folder, trained, after, config=config, world=world, keep=99)
    found = learned(trained, results)
    engine.close()
    return found


def move_on(rank: int, world_size: int, folder: Path, zeros: tuple[int | None, ...]) -> dict[str, Learned]:
    """Through several engines, two steps each, a checkpoint between any two; what the last one has."""
    found = {}
    with world_of(rank, world_size) as world:
        for name, optimizer in OPTIMIZERS.items():
            for zero in zeros:
                training = Training(zero=zero, optimizer=optimizer)
                found[name] = save_and_leave(folder / name, training, world, EACH)
    return found


def stop_and_go(rank: int, world_size: int, folder: Path) -> None:
    """Every engine: a run with a stop in its middle, and one without."""
    with world_of(rank, world_size) as world:
        for zero in ZEROS:
            for name, optimizer in OPTIMIZERS.items():
                training = Training(zero=zero, optimizer=optimizer, micro_batches=2, tolerance=1e-5)
                where = folder / f"{zero}_{name}"
                save_and_leave(where / "whole", training, world, 2 * EACH)
                for _ in range(2):
                    save_and_leave(where / "broken", training, world, EACH)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Learned]]]:
    folder = tmp_path_factory.mktemp("moved")
    ranks: list[dict[str, Learned]] = []
    for number, (world_size, zeros) in enumerate(STAGES):
        ranks = run_gang(world_size, move_on, folder, zeros, folder=folder / f"gang{number}", deadline_seconds=240)
    return folder, ranks


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_through_all_engines_equals_the_run_that_stays(
    moved: tuple[Path, list[dict[str, Learned]]], name: str
) -> None:
    folder, ranks = moved
    plain = Training(optimizer=OPTIMIZERS[name])
    with world_of(0, 1) as world:
        truth = train(plain, world, range(TOTAL))
    begun = network(plain).state_dict()
    for rank in ranks:
        assert difference(flat(rank[name].weights), flat(truth.weights), flat(begun)) < 1e-5
    centers = torch.cat([rank[name].centers for rank in ranks])
    assert difference(centers, truth.centers, initial_centers(class_shard(CLASSES, 1, 0), DIM, 0)) < 1e-5
    saved = folder / name / "checkpoints"
    assert sorted(path.name for path in saved.iterdir()) == [
        f"step_{step:08d}" for step in range(EACH, TOTAL + 1, EACH)
    ]
    for path in saved.iterdir():
        found = everything(path)
        assert read_weights(path).keys() == begun.keys(), "plain names, whatever wrote them"
        for parameter, whole in begun.items():
            state = found["shared"]["optimizer"][parameter]
            assert set(state) == ({"momentum_buffer"} if name == "sgd" else {"step", "exp_avg", "exp_avg_sq"})
            for key, value in state.items():
                tensor = found[value["$tensor"]]
                assert tensor.shape == (() if key == "step" else whole.shape)
                assert tensor.count_nonzero(), "it has learned something"
        if name == "adamw":
            assert float(found["shared.optimizer.stem.bias.step"]) == found["step"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    run_gang(2, stop_and_go, folder, folder=folder / "gang", deadline_seconds=240)
    return folder


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("zero", ZEROS)
def test_within_one_engine_a_stop_changes_no_bit(stopped: Path, zero: int | None, name: str) -> None:
    where = stopped / f"{zero}_{name}"
    last = f"checkpoints/step_{2 * EACH:08d}"
    found: list[dict[str, Any]] = [everything(where / run / last) for run in ("broken", "whole")]
    assert_identical(*found)
