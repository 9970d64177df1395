"""Loading published or own backbone weights from a state-dict file, strictly."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.backbones.weights_origin import backbone_of, embedding_dim_of, has_running_statistics
from trainer.errors import ConfigError

DISTRIBUTED_PREFIX = "module."
NAMED = 3
"""How many tensors of each kind a message names."""


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
        ConfigError: as ``read_state_dict`` and ``load_weights``.
    """
    load_weights(module, read_state_dict(path), source=path)


def load_weights(module: nn.Module, found: Mapping[str, Tensor], *, source: Path) -> None:
    """Copy ``found``, read from ``source``, into ``module``; every name and shape must match.

    Raises:
        ConfigError: as ``check_weights``; ``module`` is then unchanged.
    """
    check_weights(module, found, source=source)
    module.load_state_dict(found, strict=True)


def check_weights(module: nn.Module, found: Mapping[str, Tensor], *, source: Path) -> None:
    """Whether ``found``, read from ``source``, are weights of ``module``.

    Raises:
        ConfigError: tensors (a few are named) are missing, unknown or misshapen, or hold NaN or infinite numbers.
    """
    expected = module.state_dict()
    missing = [f"{name} {_shape(tensor)}" for name, tensor in expected.items() if name not in found]
    unknown = [f"{name} {_shape(tensor)}" for name, tensor in found.items() if name not in expected]
    misshapen = [
        f"{name} is {_shape(found[name])} but the model wants {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if missing or unknown or misshapen:
        wrong = [
            _some(missing, "is missing", "are missing"),
            _some(unknown, "is unknown to the model", "are unknown to the model"),
            _some(misshapen, "", ""),
        ]
        raise ConfigError(f"backbone weights {source}: {'; '.join(filter(None, wrong))}; {_way_out(found, expected)}")
    spoiled = [name for name, tensor in found.items() if not bool(tensor.isfinite().all())]
    if spoiled:
        raise ConfigError(
            f"backbone weights {source}: {_some(spoiled, 'is', 'are')} not finite: the run they come from has "
            "diverged, use an earlier checkpoint"
        )


def _some(names: list[str], one: str, several: str) -> str:
    """The first names of a list, how many more there are, and what is the matter with them."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more} {one if len(names) == 1 else several}".rstrip()


def _way_out(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The setting that would make ``found`` fit, as far as its names and shapes tell."""
    theirs, ours = backbone_of(found), backbone_of(expected)
    if theirs is not None and theirs != ours:
        return f'these are weights of {theirs}: choose the backbone they were saved from, backbone.name = "{theirs}"'
    if has_running_statistics(found) != has_running_statistics(expected):
        kinds = '"batch" or "sync_batch"' if has_running_statistics(found) else '"group"'
        return f"they were saved with other normalisation layers: set backbone.normalization to {kinds}"
    length = embedding_dim_of(found)
    hint = f", backbone.embedding_dim = {length}" if length not in (None, embedding_dim_of(expected)) else ""
    patches = " (and patch_size)" if "pos_embed" in expected else ""
    return f"choose the backbone, embedding_dim and image size{patches} they were saved with{hint}"


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
