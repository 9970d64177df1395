"""Calibration of this machine's GPUs: alone, and all of them at once."""

import json
import math
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from data_pipeline.pending_file import write_file
from trainer.errors import ConfigError
from trainer.plan.calibration import VERSION, Calibration, calibration_values, require_writable
from trainer.plan.devices import device_named
from trainer.plan.local_ranks import local_ranks, outcome
from trainer.plan.rates import Rates

DEADLINE_SECONDS = 540.0


@dataclass(frozen=True)
class MeasuredGpu:
    """sheet: the device whose data sheet stands for what was not measured. memory: bytes."""

    sheet: str
    memory: float


def calibrate_gpus(path: Path, sheet: str) -> Calibration:
    """Measure one GPU alone, then all of this machine, a rank each; write it. sheet: what they are, as of ``--device``.

    Raises ConfigError where there is none, or it cannot be measured or written.
    """
    require_writable(path)
    device_named(sheet)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        raise ConfigError(
            f"--calibrate --device {sheet}: PyTorch sees no CUDA device here; run it on the GPU's machine"
        )
    found: Calibration = {}
    memory = 0.0
    with tempfile.TemporaryDirectory(prefix="pfc-plan-", dir=path.absolute().parent) as folder:
        for ranks in sorted({1, gpus}):
            words = ["trainer.plan.probe_gpu", "--sheet", sheet, "--folder", folder]
            with local_ranks(words, ranks) as processes:
                printed = json.loads(outcome(processes, deadline_seconds=DEADLINE_SECONDS).splitlines()[-1])
            found[ranks] = Rates.from_dict(printed["rates"], "the measurement")
            memory = float(printed["memory"])
    write_file(path, calibration_text(found, MeasuredGpu(sheet, memory)))
    return found


def calibration_text(found: Calibration, gpu: MeasuredGpu) -> str:
    """What the file holds."""
    values = {
        "version": VERSION,
        "machine": platform.node(),
        "gpu": {"sheet": gpu.sheet, "memory": gpu.memory},
        "layouts": {str(ranks): rates.to_dict() for ranks, rates in found.items()},
    }
    return json.dumps(values, indent=2) + "\n"


def measured_gpu(path: Path) -> MeasuredGpu | None:
    """Whose calibration that file is; None: of a CPU. Raises ConfigError, one line, for anything but such a file."""
    gpu = calibration_values(path).get("gpu")
    if gpu is None:
        return None
    where = f"--calibration {path}"
    if not isinstance(gpu, dict) or set(gpu) != {"sheet", "memory"}:
        raise ConfigError(f"{where}: its gpu is not named with its memory; measure again with pfc plan --calibrate")
    sheet, memory = gpu["sheet"], gpu["memory"]
    if not isinstance(sheet, str) or isinstance(memory, bool) or not isinstance(memory, int | float):
        raise ConfigError(f"{where}: its gpu is not named with its memory; measure again with pfc plan --calibrate")
    if not math.isfinite(memory) or not 0 < memory < 1e15:
        raise ConfigError(f"{where}: memory = {memory!r} is no possible figure; measure again")
    device_named(sheet)
    return MeasuredGpu(sheet, float(memory))
