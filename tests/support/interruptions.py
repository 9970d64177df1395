"""Signals that a training process sends to itself at a chosen place of the real code."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import trainer.growth.grow
import trainer.training
from trainer.checkpoint.draft import Draft
from trainer.engine import DeepSpeedEngine
from trainer.growth.mean_embeddings import ImageEmbedder
from trainer.loop import TrainingLoop
from trainer.stopping import StopRequest

HEARD_SECONDS = 30.0


def interrupt(place: str, number: int) -> None:
    """Send signal ``number`` to this process, once, when it comes to ``place``, one of ``PLACES``."""
    happens = _once(_kill(number))
    PLACES[place](happens)


def _before(owner: Any, name: str, happens: Callable[[], None], *, call: int = 1) -> None:
    """``happens`` before the real function runs for the ``call``-th time."""
    real, calls = getattr(owner, name), 0

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            happens()
        return real(*args, **kwargs)

    setattr(owner, name, replaced)


def _after(owner: Any, name: str, happens: Callable[[], None]) -> None:
    real = getattr(owner, name)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        happens()
        return result

    setattr(owner, name, replaced)


PLACES: dict[str, Callable[[Callable[[], None]], None]] = {
    "built": lambda happens: _after(trainer.training, "build_trained", happens),
    "before embedding": lambda happens: _before(trainer.growth.grow, "angles_of_kept", happens),
    # The third window of images: after those of some that stay, on one rank or two.
    "embedding": lambda happens: _before(ImageEmbedder, "_sums", happens, call=3),
    "folder made": lambda happens: _after(trainer.training, "claim", happens),
    "before the first checkpoint": lambda happens: _before(Draft, "publish", happens),
    "after the first checkpoint": lambda happens: _after(Draft, "publish", happens),
    "step 3": lambda happens: _before(TrainingLoop, "_take_step", happens, call=3),
}


def tell_of_engine() -> None:
    """Lines on standard error when DeepSpeed's engine is closed or abandoned, and whether a signal could still change
    the exit code by then.
    """
    satisfied: list[bool] = []
    _after(StopRequest, "satisfied", lambda: satisfied.append(True))
    for name, what in (("close", "closed"), ("abandon", "abandoned")):

        def tell(what: str = what) -> None:
            heard = "nothing is left to stop" if satisfied else "signals are still heard"
            print(f"engine {what}, {heard}", file=sys.stderr, flush=True)

        _after(DeepSpeedEngine, name, tell)


def _once(action: Callable[[], None]) -> Callable[[], None]:
    done = False

    def act() -> None:
        nonlocal done
        if not done:
            done = True
            action()

    return act


def _kill(number: int) -> Callable[[], None]:
    heard = threading.Event()
    _after(StopRequest, "hear", heard.set)

    def act() -> None:
        os.kill(os.getpid(), number)
        if number != signal.SIGKILL:
            # A thread takes it in: what follows must find it asked for, in every run.
            assert heard.wait(HEARD_SECONDS), "the signal was not heard"

    return act
