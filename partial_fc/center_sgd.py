"""CenterSGD: stochastic gradient descent for the class centers of a PartialFC head."""

import torch

from partial_fc.head import PartialFC


class CenterSGD(torch.optim.SGD):
    """SGD with momentum and weight decay over ``head.centers``; any learning-rate scheduler drives it.

    With gradient g, center w, momentum buffer m, per step:

        m <- momentum * m + (g + weight_decay * w)        w <- w - lr * m

    No communication: each rank updates the rows it owns. Accumulated micro-batches add up in
    ``head.centers.grad`` as usual. ``foreach`` is off: it would allocate a second [R, D] temporary.
    """

    def __init__(self, head: PartialFC, lr: float, momentum: float = 0.9, weight_decay: float = 5e-4) -> None:
        super().__init__([head.centers], lr=lr, momentum=momentum, weight_decay=weight_decay, foreach=False)
        self.head = head
