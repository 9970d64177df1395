"""``python -m trainer`` is ``pfc``: the form that torchrun starts."""

from trainer.program import program

program()
