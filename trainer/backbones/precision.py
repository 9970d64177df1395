"""Mixed precision of a backbone's trunk."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16", "float16"]
TRUNK_TYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def trunk_autocast(device_type: str, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return the context in which the trunk runs: autocast to ``dtype``, nothing at all for float32.

    Nothing, rather than a disabled autocast, because that would appear in exported graphs.
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device_type, dtype)


def leave_trunk(features: Tensor) -> Tensor:
    """Return ``features`` in at least float32, for the layers after the trunk."""
    return features.float() if features.dtype in (torch.bfloat16, torch.float16) else features
