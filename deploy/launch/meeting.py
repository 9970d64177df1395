"""Several nodes meet before any rank starts: at the first one's store, and not for ever.

torch would wait ten minutes, and then print pages. One that is not there after :data:`SECONDS` is mostly one that will
not come: a launcher that died, a machine that is down, an address that leads nowhere; the scheduler had better start
all of them again.
"""

import re
import socket
import time

SECONDS = 120  # all launchers of a job start within moments; a Python environment on a slow disk takes a minute
POLL_SECONDS = 0.5
VARIABLE = "PFC_MEETING_SECONDS"  # for schedulers; --rdzv-conf timeout=SECONDS says the same
WAY_OUT = f"to wait longer set {VARIABLE}"


class MeetingError(Exception):
    """Not all nodes have come; one line that says who is missing."""


def with_limit(configuration: str, variable: str | None) -> tuple[str, int]:
    """torchrun's ``--rdzv-conf`` with a limit in it, and the limit in seconds; variable: the value of VARIABLE, if any.

    Raises ValueError, one line.
    """
    given = dict(part.partition("=")[::2] for part in configuration.split(",") if part)
    source = "--rdzv-conf timeout" if "timeout" in given else VARIABLE
    text = given.setdefault("timeout", str(SECONDS) if variable is None else variable)
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise ValueError(f"{source}={text}: give whole seconds, 1 or more")
    return ",".join(f"{key}={value}" for key, value in given.items()), int(text)


def wait_for_first_node(address: str, port: int, seconds: int) -> None:
    """Return when something listens at the first node's ``address`` and ``port``. Raises MeetingError."""
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        try:
            with socket.create_connection((address, port), timeout=max(left, POLL_SECONDS)):
                return
        except OSError as error:
            if time.monotonic() + POLL_SECONDS > end:
                raise MeetingError(
                    f"the first node did not answer at {address}:{port} within {seconds} s "
                    f"({error.strerror or error}): {WAY_OUT}"
                ) from None
        time.sleep(POLL_SECONDS)


def who_is_missing(text: str, seconds: int) -> str | None:
    """What a node says of torch's error ``text``, where that is about nodes that did not come."""
    if "torchelastic/assigned_ranks" in text:  # this one waits for the first, and that one for all
        return f"not all nodes came within {seconds} s: {WAY_OUT}"
    found = re.search(r"(\d+)/(\d+) clients joined", text)
    if found is None:
        return None
    return f"only {found[1]} of {found[2]} nodes came within {seconds} s: {WAY_OUT}"
