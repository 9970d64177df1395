"""The trainer as a command, with a backbone whose embeddings become infinite in chosen steps, on the last rank alone.

python poisoned_trainer.py 8,9,10 train RUN.toml ...    steps count from 1; "8-" means all from there on
"""

import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

import trainer.building
from trainer.cli import main


def chosen(text: str, step: int) -> bool:
    return any(step >= int(part[:-1]) if part.endswith("-") else step == int(part) for part in text.split(","))


def poison(network: nn.Module, steps: str) -> None:
    """Black images are no step: DDP and the compiler run on some before the first."""
    taken = 0

    def act(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        nonlocal taken
        if not (module.training and inputs[0].any()):
            return output
        taken += 1
        return output / 0.0 if chosen(steps, taken) else output

    network.register_forward_hook(act)


def poisoned(steps: str) -> Any:
    build = trainer.building.build_backbone

    def build_poisoned(*args: Any, **kwargs: Any) -> nn.Module:
        network = build(*args, **kwargs)
        if int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1:
            poison(network, steps)
        return network

    return build_poisoned


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer.building.build_backbone = poisoned(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
