"""torch.compile of the backbone: what is compiled runs in training alone, the module itself stays as it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainer.errors import ConfigError


def compiled(backbone: nn.Module) -> nn.Module:
    """A module that runs ``backbone`` compiled, with the same parameters; compilation happens in the first pass.

    Names of the backbone's parameters stay what they are, and evaluation runs without waiting for a compiler.
    """
    network: nn.Module = torch.compile(backbone)  # type: ignore[assignment]
    return network


@contextmanager
def compiler_errors() -> Iterator[None]:
    """A compiler that is missing or fails -> ConfigError, one line with the way out."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        cause = error.__cause__ or error
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise ConfigError(
            f"train.compile = true: the backbone cannot be compiled ({reason}); on the CPU torch needs a C++ compiler "
            "(g++); or set train.compile = false"
        ) from None
