"""For tests of what feeds it: ``deaf`` reads nothing, ``dying`` ends at once, ``keeping`` stores its input."""

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    behaviour = os.environ["FED_PROCESS"]
    if behaviour == "deaf":
        print("I do not read", flush=True)
        time.sleep(600)
    elif behaviour == "dying":
        sys.exit("no key")
    else:
        Path(os.environ["FED_PROCESS_OUTPUT"]).write_bytes(sys.stdin.buffer.read())
        print("kept", flush=True)
