"""Loading published or own backbone weights from a state-dict file, strictly."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import ConfigError

DISTRIBUTED_PREFIX = "module."


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a ``.pt`` / ``.pth`` file that holds one flat state dict, on the CPU.

    The prefix ``module.`` that DistributedDataParallel adds is removed if every name carries it. Only tensors
    and plain containers are unpickled, so the file cannot run code.

    Raises:
        ConfigError: the file is missing, is not a torch file, or holds something else than named tensors.
    """
    if not path.is_file():
        raise ConfigError(f"backbone weights {path}: no such file; give the path of a state-dict file (.pt or .pth)")
    try:
        with warnings.catch_warnings():
            # Torch warns of pickle protocols that it did not write itself; it then reads or refuses them.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        OSError,
    ) as error:
        raise ConfigError(
            f"backbone weights {path}: not a file of plain tensors ({type(error).__name__}); "
            "save it with torch.save(module.state_dict(), path)"
        ) from error
    if not _is_state_dict(content):
        raise ConfigError(
            f"backbone weights {path}: holds {_describe(content)} instead of named tensors; "
            "save it with torch.save(module.state_dict(), path)"
        )
    if all(name.startswith(DISTRIBUTED_PREFIX) for name in content):
        return {name.removeprefix(DISTRIBUTED_PREFIX): tensor for name, tensor in content.items()}
    return dict(content)


def load_pretrained(module: nn.Module, path: Path) -> None:
    """Copy the state dict in ``path`` into ``module``; every name and shape must match.

    Raises:
        ConfigError: as ``read_state_dict``, or a tensor (the first is named) is missing, unknown or misshapen.
    """
    found = read_state_dict(path)
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in found:
            raise ConfigError(
                f"backbone weights {path}: {name} {_shape(tensor)} is missing; choose the backbone they were saved from"
            )
        if found[name].shape != tensor.shape:
            raise ConfigError(
                f"backbone weights {path}: {name} is {_shape(found[name])} but the model wants {_shape(tensor)}; "
                "choose the backbone, embedding_dim and image size they were saved with"
            )
    for name, tensor in found.items():
        if name not in expected:
            raise ConfigError(
                f"backbone weights {path}: {name} {_shape(tensor)} is unknown to the model; "
                "choose the backbone they were saved from"
            )
    module.load_state_dict(found, strict=True)


def _is_state_dict(content: object) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
    )


def _describe(content: object) -> str:
    if isinstance(content, dict):
        keys = ", ".join(sorted(str(key)[:40] for key in content)[:3])
        return f"a dictionary ({keys or 'empty'})"
    return f"a {type(content).__name__}"


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
