"""Torch's exporters without their remarks: on packages they could use, and on what their libraries will change."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("torch.onnx", "torch.__trace")


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, and of torch's log errors alone."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    former = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, former, strict=True):
            logger.setLevel(level)
