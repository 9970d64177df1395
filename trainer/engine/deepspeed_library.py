"""DeepSpeed itself: imported only where it is chosen, kept quiet, its complaints turned into one line."""

import contextlib
import difflib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from trainer.errors import ConfigError


def import_deepspeed() -> Any:
    """The module, with its log on standard error and no more of it than errors.

    The environment must say for which device: see :func:`trainer.world.prepare_deepspeed`.
    Raises ConfigError where DeepSpeed is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says which accelerator it found
            deepspeed = importlib.import_module("deepspeed")
    except ImportError as error:
        raise ConfigError(
            f"train.engine = 'deepspeed' needs DeepSpeed ({error}): pip install 'pfc[deepspeed]', "
            "or set train.engine = 'ddp'"
        ) from None
    logger = deepspeed.utils.logger
    logger.setLevel(logging.ERROR)  # ``log_level`` in its configuration has the last word
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    # It calls collectives by names that torch is about to give up: said once per call and rank otherwise.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # A C++ all-reduce for inference, which no training path calls: 50 s of compilation on two cores.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def check_config(deepspeed: Any, config: dict[str, Any]) -> None:
    """Let DeepSpeed's own models read ``config``. Raises ConfigError: which key, what is wrong, the nearest known."""
    with _one_line(deepspeed):
        deepspeed.DeepSpeedConfig(config)


@contextmanager
def _one_line(deepspeed: Any) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            message = f"unknown key '{place}'{_nearest(deepspeed, error.title, str(problem['loc'][-1]))}"
        else:
            message = f"'{place}': {problem['msg']}, got {problem['input']!r}"
        raise ConfigError(f"[deepspeed] {message} ({error.title})") from None
    except (deepspeed.DeepSpeedConfigError, AssertionError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"[deepspeed] DeepSpeed refuses it: {str(error).splitlines()[0]}") from None


def _nearest(deepspeed: Any, model: str, key: str) -> str:
    base = deepspeed.runtime.config_utils.DeepSpeedConfigModel
    for known in base.__subclasses__():
        if known.__name__ == model:
            names = {name for field, info in known.model_fields.items() for name in (field, info.alias) if name}
            nearest = difflib.get_close_matches(key, sorted(names), n=1, cutoff=0.0)
            return f"; the nearest known key is '{nearest[0]}'" if nearest else ""
    return ""
