"""A compiled backbone learns the same, on two ranks, with activation checkpointing, under both engines."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from engine_training import Learned, Training, difference, flat, network, train, world_of
from gang import run_gang

from trainer.errors import ConfigError

pytestmark = pytest.mark.distributed

PLAIN = Training(dtype=torch.float64)
COMPILED = {
    "ddp": replace(PLAIN, compiled=True, checkpointed=True),
    "deepspeed": replace(PLAIN, compiled=True, checkpointed=True, zero=2, dtype=torch.float32),
}
STEPS = (0, 1)  # of one size: others are compiled anew


def all_cases(rank: int, world_size: int, folder: Path) -> dict[str, Learned]:
    keep_to(folder)
    with world_of(rank, world_size) as world:
        return {name: train(training, world, STEPS) for name, training in COMPILED.items()}


def keep_to(folder: Path) -> None:
    """The compiler writes nowhere else."""
    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TMPDIR": str(folder), "TRITON_CACHE_DIR": str(folder)}


def test_compiled_equals_eager_and_names_stay_plain(tmp_path: Path) -> None:
    with world_of(0, 1) as world:
        eager = train(PLAIN, world, STEPS)
    begun = flat(network(PLAIN).state_dict())
    for rank in run_gang(2, all_cases, tmp_path, folder=tmp_path / "gang", deadline_seconds=240):
        for name, found in rank.items():
            assert found.weights.keys() == eager.weights.keys(), name
            assert difference(flat(found.weights), flat(eager.weights), begun) < 1e-5, name


def without_compiler(rank: int, world_size: int, folder: Path) -> str:
    # CXX is read when torch is imported, which has happened.
    torch._inductor.config.cpp.cxx = (str(folder / "no_compiler"),)
    keep_to(folder)
    with world_of(rank, world_size) as world, pytest.raises(ConfigError) as caught:
        train(replace(PLAIN, compiled=True), world, ())
    return str(caught.value)


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    (told,) = run_gang(1, without_compiler, tmp_path, folder=tmp_path / "gang")
    assert told.startswith("train.compile = true: the backbone cannot be compiled (")
    assert "g++" in told
    assert "\n" not in told
