"""``python -m trainer`` is ``pfc``: the form that torchrun starts."""

import sys

from trainer.cli import main

sys.exit(main())
