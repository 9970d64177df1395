"""``pfc train`` within the test's own process: no launcher, no start of an interpreter."""

import signal
from pathlib import Path

from data_pipeline import DataError
from trainer.complaint import complain
from trainer.config import load_config
from trainer.errors import ConfigError
from trainer.failure import exit_code
from trainer.stopping import SIGNALS
from trainer.training import train


def train_here(config: Path, *overrides: str) -> int:
    """The exit code, and what the command would say on standard error; signals mean what they meant before."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return int(train(load_config(config, overrides)))
    except (ConfigError, DataError) as error:
        return complain(str(error), exit_code(error))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
