"""The scale that keeps float16's small gradients from becoming 0."""

INITIAL = 2.0**16
GROW_AFTER = 2000  # steps without overflow
SMALLEST = 1.0  # an overflow of the unscaled gradient is no matter of scale: the step is not finite


class LossScaler:
    """Doubles the scale after ``GROW_AFTER`` good steps, halves it at each overflow, never below ``SMALLEST``.

    The scale is put on the embeddings' gradient, between head and backbone: the class centers never see it, while a
    scaled loss would scale their gradient too. ``follow`` is told what all ranks found together, so the scale is the
    same on all.
    """

    def __init__(self, scale: float = INITIAL) -> None:
        self.scale = scale
        self.good_steps = 0  # since the scale changed

    def follow(self, *, finite: bool) -> bool:
        """Take in how a step's gradient came out; True where it overflowed because the scale was too large."""
        if finite:
            self.good_steps += 1
            if self.good_steps == GROW_AFTER:
                self.scale, self.good_steps = self.scale * 2.0, 0
            return False
        self.good_steps = 0
        if self.scale <= SMALLEST:
            return False
        self.scale = max(self.scale / 2.0, SMALLEST)
        return True

    def state(self) -> dict[str, float | int]:
        """To save."""
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state(self, state: dict[str, float | int]) -> None:
        """What :meth:`state` gave."""
        self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
