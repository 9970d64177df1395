"""What a node's workers returned, as one exit code: schedulers decide by it whether to start the run again."""

import signal
from collections.abc import Mapping

DONE = 0
FAILURE = 1
BAD_INPUT = 2  # no use in running it again
STOPPED = 75  # on request, nothing is lost: run it again

BY_REQUEST = (-signal.SIGTERM, -signal.SIGINT)


def merged(codes: Mapping[int, int], *, asked: bool) -> int:
    """The node's exit code from those of its ranks, as ``subprocess`` gives them: -9 is an end by SIGKILL.

    asked: whether the launcher itself was asked to stop. In this order:

    - BAD_INPUT if any rank says so: it would be so again.
    - STOPPED if ranks say so and nothing else happened. A rank that SIGTERM ended counts as stopped where another one
      stopped too, or where the launcher was asked: it had not begun yet, or was on its way out. Where the launcher was
      asked, one rank that says STOPPED speaks for all: all ranks have agreed on its checkpoint.
    - FAILURE if any rank ended otherwise than with 0: an exit with 1, a crash, SIGKILL.
    """
    failed = {code for code in codes.values() if code != DONE}
    if not failed:
        return DONE
    if BAD_INPUT in failed:
        return BAD_INPUT
    by_request = {STOPPED, *(BY_REQUEST if asked or STOPPED in failed else ())}
    if failed <= by_request or (asked and STOPPED in failed):
        return STOPPED
    return FAILURE


def described(codes: Mapping[int, int]) -> str:
    """``rank 0 exited with 1, rank 1 was ended by SIGKILL``, the first few."""
    failed = [(rank, code) for rank, code in sorted(codes.items()) if code != DONE]
    shown = [f"rank {rank} {_described(code)}" for rank, code in failed[:4]]
    more = [f"{len(failed) - 4} more"] if len(failed) > 4 else []
    return ", ".join(shown + more)


def _described(code: int) -> str:
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
