"""The ``[deepspeed]`` table: DeepSpeed's own configuration, handed on to it, and what of it the trainer decides.

Checked here without DeepSpeed, so that reading a run's configuration needs no import of it; the tables that are handed
on are checked against DeepSpeed's own models by :mod:`trainer.engine.deepspeed_library` before a run starts.
"""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

CONFIG_FILE = "config"  # the one key of the table that is not DeepSpeed's: a JSON file in its place

OWNED = {
    "train_batch_size": "data.batch_size",
    "train_micro_batch_size_per_gpu": "data.batch_size and train.micro_batches",
    "gradient_accumulation_steps": "train.micro_batches",
    "managed_gradient_accumulation": "train.micro_batches",
    "gradient_clipping": "train.clip_norm",
    "optimizer": "the table [optimizer]",
    "zero_allow_untested_optimizer": "the table [optimizer]",
    "scheduler": "the table [schedule]",
    "fp16": "backbone.precision",
    "bf16": "backbone.precision",
    "bfloat16": "backbone.precision",
    "amp": "backbone.precision",
    "torch_autocast": "backbone.precision",
    "data_types": "backbone.precision",
    "activation_checkpointing": "backbone.activation_checkpointing",
    "compile": "train.compile",
    "checkpoint": "the table [checkpoint]",
    "gradient_allreduce_op": "nothing: gradients are summed over ranks in any case",
    "prescale_gradients": "nothing: gradients are summed over ranks in any case",
    "gradient_predivide_factor": "nothing: gradients are summed over ranks in any case",
}
"""Keys of DeepSpeed that this trainer sets itself, and what a user sets instead."""

HANDED_ON = (
    "zero_optimization",
    "communication_data_type",
    "disable_allgather",
    "disable_python_gc",
    "comms_logger",
    "flops_profiler",
    "timers",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "steps_per_print",
    "tensorboard",
    "wandb",
    "comet",
    "csv_monitor",
    "log_level",
)

ELSEWHERE = (
    "offload_optimizer",
    "offload_param",
    "cpu_offload",
    "cpu_offload_param",
    "cpu_offload_use_pin_memory",
    "zenflow",
)
"""Keys of ``zero_optimization`` that keep weights or optimizer state where this trainer's checkpoints do not look."""

BUCKET = 25 * (1 << 20) // 4
"""Numbers of gradient that are exchanged at a time: 25 MiB, as DistributedDataParallel has it."""


def read_table(value: Any) -> dict[str, Any]:
    """The table itself, or the JSON file it names; plain values, without those that DeepSpeed takes for absent.

    Raises ValueError for what the trainer decides, what it does not support, and unknown keys.
    """
    if not isinstance(value, dict):
        raise ValueError("give a table of DeepSpeed's own keys, or config = 'FILE.json'")
    if CONFIG_FILE in value:
        if len(value) > 1:
            other = next(key for key in value if key != CONFIG_FILE)
            raise ValueError(f"deepspeed.config names a file, so '{other}' belongs into that file")
        value = _read_file(value[CONFIG_FILE])
    table: dict[str, Any] = _present(value)
    for key in table:
        if key in OWNED:
            raise ValueError(f"deepspeed.{key} is decided by the trainer: leave it out; set instead {OWNED[key]}")
        if key not in HANDED_ON:
            raise ValueError(f"unknown key 'deepspeed.{key}'; {_nearest(key)}")
    zero = table.get("zero_optimization", {})
    if not isinstance(zero, dict) or zero_stage(table) not in (0, 1, 2, 3):
        raise ValueError("deepspeed.zero_optimization.stage must be 0, 1, 2 or 3")
    for key in zero:
        if key in ELSEWHERE and zero[key]:
            raise ValueError(f"deepspeed.zero_optimization.{key} is not supported: leave it out")
    return table


def zero_stage(table: dict[str, Any] | None) -> int:
    """0 to 3; 0 without a word about it."""
    stage: int = (table or {}).get("zero_optimization", {}).get("stage", 0)
    return stage


def bucket_size(weights: int) -> int:
    """``reduce_bucket_size`` where the table has none, of a network with so many weights.

    DeepSpeed takes memory for two such buckets, and gradients of a whole bucket wait for its exchange: its own default
    of 500 million numbers would hold a face network's gradients three times.
    """
    return max(1, min(weights, BUCKET))


def _read_file(path: Any) -> dict[str, Any]:
    if not isinstance(path, str):
        raise ValueError("deepspeed.config must be the path of a JSON file")
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no JSON, {error}"
        raise ValueError(f"deepspeed.config {path}: cannot be read ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError(f"deepspeed.config {path}: holds no table of DeepSpeed's keys")
    return content


def _present(value: Any) -> Any:
    """Without null, which is what is not there, and "auto", which leaves a value to whoever calls DeepSpeed."""
    if not isinstance(value, dict):
        return value
    return {key: _present(each) for key, each in value.items() if each is not None and each != "auto"}


def _nearest(key: str) -> str:
    known = [*HANDED_ON, *OWNED, CONFIG_FILE]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0) or known
    return f"the nearest known key is 'deepspeed.{nearest[0]}'"


DeepSpeedTable = Annotated[dict[str, Any], BeforeValidator(read_table)]
