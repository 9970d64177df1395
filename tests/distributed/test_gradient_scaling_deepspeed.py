"""The backbone under DeepSpeed (ZeRO 0, 1 and 2), the head beside it, against one process that sees the whole batch.

DeepSpeed averages over ranks unless its configuration says "gradient_allreduce_op": "sum", and its ``engine.backward``
divides the loss by gradient_accumulation_steps: what the head's user must write follows from these two.
"""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gang import run_gang
from scaling_truth import (
    STEPS,
    Trace,
    assert_is_truth,
    backbone_sgd,
    center_sgd,
    flat,
    micro_batch,
    my_rows,
    network,
    new_head,
)

from partial_fc import scale_gradient

pytestmark = pytest.mark.distributed

WORLD_SIZE = 2


@dataclass(frozen=True)
class Case:
    zero_stage: int
    averaging: bool  # as DeepSpeed comes, with scale_gradient; otherwise told to sum
    micro_batches: int

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,  # book-keeping alone: batches here are uneven
            "gradient_accumulation_steps": self.micro_batches,
            "zero_optimization": {"stage": self.zero_stage},
            "zero_allow_untested_optimizer": True,  # torch.optim.SGD
            "gradient_clipping": 0.0,  # the default, 1.0, shortens the backbone's gradient and not the centers'
        }
        return config if self.averaging else config | {"gradient_allreduce_op": "sum"}


CASES = [
    Case(zero_stage, averaging, micro_batches)
    for zero_stage in (0, 1, 2)
    for averaging in (True, False)
    for micro_batches in (1, 2)
]


def load_deepspeed(rank: int, folder: Path) -> Any:
    """Import DeepSpeed for the CPU, writing nowhere but under ``folder`` and compiling nothing."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank), "TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
    deepspeed = importlib.import_module("deepspeed")
    # A C++ all-reduce for inference, which no training path calls: 50 s of compilation on two cores.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def train(deepspeed: Any, case: Case, rank: int) -> Trace:
    """What a user writes; gradients are recorded as the optimizers see them."""
    trace, backbone, head = Trace(), network(), new_head()
    center_optimizer = center_sgd(head)
    optimizer = backbone_sgd(backbone.parameters())
    engine, *_ = deepspeed.initialize(model=backbone, optimizer=optimizer, config=case.config())
    factor = WORLD_SIZE if case.averaging else 1
    for step in range(STEPS):
        loss_sum = 0.0
        for index in range(case.micro_batches):
            images, identities = micro_batch(step, index)
            mine = my_rows(WORLD_SIZE, rank, index)
            loss = head(scale_gradient(engine(images[mine]), factor), identities[mine])
            loss_sum += engine.backward(loss).item()  # what it returns, it has divided by micro_batches
            if engine.is_gradient_accumulation_boundary():
                center_gradient = head.center_gradient()
                assert center_gradient is not None
                trace.backbone_gradients.append(flat(map(deepspeed.utils.safe_get_full_grad, backbone.parameters())))
                trace.center_gradients.append(center_gradient)
                center_optimizer.step()
                center_optimizer.zero_grad()
            engine.step()  # updates and clears at the boundary, does nothing elsewhere
        trace.losses.append(loss_sum)
    trace.weights, trace.centers = flat(backbone.parameters()), head.centers.detach().clone()
    return trace


def all_cases(rank: int, world_size: int, folder: Path) -> list[Trace]:
    assert world_size == WORLD_SIZE
    deepspeed = load_deepspeed(rank, folder)
    return [train(deepspeed, case, rank) for case in CASES]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[list[Trace]]:
    """What each rank returned, one trace per case."""
    folder = tmp_path_factory.mktemp("deepspeed")
    return run_gang(WORLD_SIZE, all_cases, folder, folder=folder / "gang", deadline_seconds=180)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_one_process(ranks: list[list[Trace]], case: Case) -> None:
    assert_is_truth([traces[CASES.index(case)] for traces in ranks], case.micro_batches)
