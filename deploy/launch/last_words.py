"""A node tells the others why its workers ended, where the workers could not: killed ones say nothing."""

import json
import socket
import threading
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, TCPStore

# The trainer's watchdog looks here (trainer/bulletin.py). torchrun counts its own restarts, of which we use none.
PREFIX = "attempt_0"
KEY = "pfc/failure"
TELLING_SECONDS = 5.0


def tell_other_nodes(text: str, code: int, *, master: tuple[str, int], absent: int) -> None:
    """Write into the store at address and port ``master``, unless somebody has told a reason already.

    absent: ranks that end with this node. Gives up after a while.
    """

    def tell() -> None:
        timeout = timedelta(seconds=TELLING_SECONDS)
        try:
            with socket.create_connection(master, timeout=TELLING_SECONDS):
                pass  # torch would fill the screen where nobody listens
            store = TCPStore(*master, is_master=False, timeout=timeout, wait_for_workers=False)
            words = json.dumps({"text": text, "code": code, "absent": absent})
            PrefixStore(PREFIX, store).compare_set(KEY, "", words)
        except (RuntimeError, OSError):
            pass  # The first node is gone: that the others notice by themselves.

    thread = threading.Thread(target=tell, name="pfc-last-words", daemon=True)
    thread.start()
    thread.join(TELLING_SECONDS)
