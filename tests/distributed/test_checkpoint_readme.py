"""Whoever has trainer/checkpoint/README.md, json, numpy and hashlib can read a checkpoint of any number of ranks."""

import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damages import DAMAGES
from gang import run_gang
from training_on_ranks import CLASSES, continue_run

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).parents[2]
STEPS = 9
Reader = dict[str, Any]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """What the README's snippet defines."""
    text = (ROOT / "trainer" / "checkpoint" / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    imported = set(re.findall(r"^(?:import|from) (\w+)", snippet, flags=re.MULTILINE))
    assert imported == {"hashlib", "json", "numpy", "pathlib"}
    script = tmp_path_factory.mktemp("snippet") / "reader.py"
    script.write_text(snippet, encoding="utf-8")
    return runpy.run_path(str(script))


def continue_both(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    return {loss: continue_run(rank, world_size, folder / loss, loss, STEPS) for loss in ("sface", "cosface")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run_gang(3, continue_both, folder, folder=tmp_path_factory.mktemp("gang"))


def checkpoint(folder: Path, loss: str) -> Path:
    return folder / loss / "checkpoints" / f"step_{STEPS:08d}"


@pytest.mark.parametrize("loss", ["sface", "cosface"])
def test_the_recipe_finds_what_the_run_had(loss: str, reader: Reader, saved: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, ranks = saved
    path = checkpoint(folder, loss)
    content = reader["read_content"](path)
    assert (content["step"], content["world_size"], content["num_classes"]) == (STEPS, 3, CLASSES)
    if loss == "sface":
        rows = [each["motion"]["classes"]["size"][0] for each in content["ranks"]]
        assert all(rows), "rows in motion on every rank"

    stored = reader["read_tensor"](path, content, "centers")
    for name, found in (
        ("centers", reader["read_centers"](path, content)),
        ("momentum", reader["read_momentum"](path, content)),
    ):
        truth = torch.cat([rank[loss][name] for rank in ranks]).double().numpy()
        # float32 rounding, and what is negligible where a row comes to rest.
        assert np.linalg.norm(found - truth) < 1e-6 * np.linalg.norm(truth), name
        if loss == "sface":
            assert np.linalg.norm(stored - truth) > 1e-4 * np.linalg.norm(truth), "far less than what the recipe adds"

    weights = [tensor["$tensor"] for tensor in content["shared"]["backbone"].values()]
    flat = np.concatenate([reader["read_tensor"](path, content, name).ravel() for name in weights])
    assert np.array_equal(flat, ranks[0][loss]["backbone"].numpy())
    for rank, entry in enumerate(content["ranks"]):
        size, longer = divmod(CLASSES, 3)
        start = rank * size + min(rank, longer)
        assert (entry["start"], entry["stop"]) == (start, start + size + (rank < longer))


def test_every_file_ends_where_its_last_chunk_does(reader: Reader, saved: tuple[Path, list[dict[str, Any]]]) -> None:
    path = checkpoint(saved[0], "sface")
    chunks = [chunk for entry in reader["read_content"](path)["tensors"].values() for chunk in entry["chunks"]]
    for file in sorted(path.glob("rank_*.bin")):
        places = sorted((chunk["begin"], chunk["size"]) for chunk in chunks if chunk["file"] == file.name)
        end = 0
        for begin, size in places:
            assert begin == end
            end += size
        assert file.stat().st_size == end


@pytest.mark.parametrize("damage", [each for each in DAMAGES if not each.startswith(("missing", "a page"))])
def test_the_recipe_notices_what_was_altered(
    damage: str, reader: Reader, saved: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(checkpoint(saved[0], "cosface"), path)
    DAMAGES[damage](path / "checkpoint.json")
    with pytest.raises(ValueError, match=r"checkpoint\.json|Expecting|delimiter|Extra|format"):
        reader["read_content"](path)
