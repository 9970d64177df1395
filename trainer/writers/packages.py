"""Whether the packages are there that the chosen writers need."""

from importlib.util import find_spec

from trainer.errors import ConfigError
from trainer.writers.config import LogConfig


def require_packages(config: LogConfig) -> None:
    """Raise ConfigError for the first one that is missing; nothing is imported."""
    wanted = {"tensorboard": config.tensorboard, "wandb": config.wandb is not None}
    for package, is_wanted in wanted.items():
        if is_wanted and find_spec(package) is None:
            raise ConfigError(
                f"log.{package} needs the package {package}, which is not installed: pip install 'pfc[{package}]' "
                f"(or pip install {package}) on every machine, or leave log.{package} out"
            )
