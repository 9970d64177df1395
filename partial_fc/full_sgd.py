"""One step of stochastic gradient descent over all centers of a shard.

Shape letters: R rows of the class shard, D embedding size.
"""

from partial_fc.full_gradient import FullGradient
from partial_fc.stochastic_rounding import DECAY


def full_sgd(gradient: FullGradient, lr: float, momentum: float, weight_decay: float) -> None:
    """Step ``gradient.rows``: rows with a gradient or in motion, or all of them after a dense step."""
    rows = gradient.rows
    if rows.begin_step(lr, momentum, weight_decay):
        gradient.apply()
        rows.end_step()
    else:
        _plain_sgd(gradient, lr, momentum, weight_decay)


def _plain_sgd(gradient: FullGradient, lr: float, momentum: float, weight_decay: float) -> None:
    """torch.optim.SGD as it is written, over all rows: for steps that shrink every center by more than half."""
    rows = gradient.rows
    rows.make_plain()
    rows.start_anew()
    for begin, direction in gradient.dense_tiles():
        weights = rows.stored(begin, begin + len(direction))
        direction.add_(weights, alpha=weight_decay)
        if momentum != 0.0:
            direction.add_(rows.momentum(begin, begin + len(weights)), alpha=momentum)
            rows.set_momentum(begin, direction)
        rows.change(begin, weights.add_(direction, alpha=-lr), DECAY)
    rows.shared.carry = 0.0
    rows.bring_to_now()
