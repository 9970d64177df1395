"""All numbers of a checkpoint, by name, and whether two of them are the same."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import MetadataIndex

from trainer.checkpoint import read_description
from trainer.checkpoint.storage import RawReader


def everything(folder: Path) -> dict[str, Any]:
    """Every tensor put together from its chunks, and everything of the description but the places of the chunks and
    what a clock has told.
    """
    description = read_description(folder)
    reader = RawReader(folder, description.tensors)
    found: dict[str, Any] = {}
    for name, saved in reader.metadata.state_dict_metadata.items():
        whole = torch.empty(saved.size, dtype=saved.properties.dtype)
        for chunk in saved.chunks:
            place = whole
            for dim, (offset, length) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                place = place.narrow(dim, offset, length)
            place.copy_(reader.chunk(MetadataIndex(name, chunk.offsets)))
        found[name] = whole
    described = {key: getattr(description, key) for key in ("step", "samples", "loader", "shared", "ranks", "score")}
    return found | _without_times(described)


def _without_times(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_times(each) for key, each in tree.items() if key not in ("seconds", "phases")}
    return [_without_times(each) for each in tree] if isinstance(tree, list) else tree


def assert_identical(found: Any, truth: Any, where: str = "") -> None:
    if isinstance(truth, torch.Tensor):
        assert found.dtype == truth.dtype, where
        assert torch.equal(found, truth), f"{where} differs by {(found.double() - truth.double()).abs().max()}"
    elif isinstance(truth, dict):
        assert found.keys() == truth.keys(), where
        for key in truth:
            assert_identical(found[key], truth[key], f"{where}/{key}")
    elif isinstance(truth, list | tuple):
        assert len(found) == len(truth), where
        for index, pair in enumerate(zip(found, truth, strict=True)):
            assert_identical(*pair, f"{where}/{index}")
    else:
        assert found == truth, where
