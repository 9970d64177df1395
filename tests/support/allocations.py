"""Which new tensors torch operations make: their sizes, not those of views and in-place results."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Allocation:
    """One tensor with memory of its own: what made it, and its elements, counted in its storage."""

    operation: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    elements: int


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, records tensors of at least ``smallest`` elements that any operation allocates."""

    def __init__(self, smallest: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._smallest = smallest
        self.found: list[Allocation] = []

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation; note what it returns in storage that it was not given."""
        given = {item.untyped_storage().data_ptr() for item in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for item in _tensors(result):
            storage = item.untyped_storage()
            elements = storage.nbytes() // item.element_size()
            if elements >= self._smallest and storage.data_ptr() not in given:
                self.found.append(Allocation(str(func), item.dtype, tuple(item.shape), elements))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
