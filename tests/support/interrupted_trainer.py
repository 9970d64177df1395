"""The trainer as a command, one of whose ranks gets a signal at a chosen place.

python interrupted_trainer.py PLACE SIGNAL RANK train RUN.toml ...    PLACE "nowhere": it gets none
"""

import os
import sys

from interruptions import interrupt, tell_of_engine

from trainer.cli import main

if __name__ == "__main__":
    place, number, rank, *arguments = sys.argv[1:]
    tell_of_engine()
    if place != "nowhere" and os.environ.get("RANK", "0") == rank:
        interrupt(place, int(number))
    sys.exit(main(arguments))
