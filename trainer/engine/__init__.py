"""The backbone as all ranks train it together: DistributedDataParallel or DeepSpeed behind one interface."""

from trainer.engine.base import Engine, Outcome
from trainer.engine.data_parallel import data_parallel, share_buffers
from trainer.engine.ddp import DDPEngine
from trainer.engine.deepspeed import DeepSpeedEngine
from trainer.engine.loss_scale import LossScaler

__all__ = [
    "DDPEngine",
    "DeepSpeedEngine",
    "Engine",
    "LossScaler",
    "Outcome",
    "data_parallel",
    "share_buffers",
]
