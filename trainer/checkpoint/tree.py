"""A nested state as JSON and tensors: the JSON says where each tensor belongs."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from trainer.checkpoint.storage import DTYPES

TENSOR = "$tensor"


def split_tree(tree: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    """JSON of nested dicts, lists and plain values, and the tensors in them by path below ``name``.

    Raises TypeError for anything else.
    """
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value
            dtype = str(value.dtype).removeprefix("torch.")
            return {TENSOR: path, "size": list(value.shape), "dtype": dtype}
        if isinstance(value, dict):
            return {str(key): walk(each, f"{path}.{key}") for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [walk(each, f"{path}.{place}") for place, each in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{path}: a checkpoint cannot hold {type(value).__name__}")

    return walk(tree, name), tensors


def empty_tensors(tree: Any, saved: Metadata) -> dict[str, Tensor]:
    """New tensors for all that :func:`split_tree` took out of ``tree``, as large as ``saved`` holds them; not filled.

    Raises ValueError for a tensor that is not there.
    """
    found: dict[str, Tensor] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict) and TENSOR in value:
            name, size, dtype = value[TENSOR], torch.Size(value["size"]), DTYPES[value["dtype"]]
            there = saved.state_dict_metadata.get(name)
            if size.numel() and (not isinstance(there, TensorStorageMetadata) or there.size != size):
                raise ValueError(f"it holds no {name} of {list(size)}")
            found[name] = torch.empty(size, dtype=dtype)
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                walk(each)

    walk(tree)
    return found


def join_tree(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The nested state again; tuples have become lists."""
    if isinstance(tree, dict):
        if TENSOR in tree:
            return tensors[tree[TENSOR]]
        return {key: join_tree(each, tensors) for key, each in tree.items()}
    if isinstance(tree, list):
        return [join_tree(each, tensors) for each in tree]
    return tree
