"""How long a run is, and its learning rate at each step."""

from data_pipeline.loader import Loader
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.loop import Plan
from trainer.schedule import learning_rate_schedule


def make_plan(config: Config, loader: Loader) -> Plan:
    """Length of the run and its learning rate. Raises ConfigError for a warm-up that does not fit."""
    total_steps = config.train.total_steps(len(loader))
    try:
        schedule = learning_rate_schedule(
            config.schedule, base=config.optimizer.lr, total_steps=total_steps, steps_per_epoch=len(loader)
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Plan(total_steps, len(loader), schedule)
