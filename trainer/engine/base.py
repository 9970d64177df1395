"""What a training step asks of the backbone, whoever spreads it over the ranks.

Shape letters: B this rank's images of a micro-batch, S image side, D embedding size.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from partial_fc import CollectiveUse


@dataclass(frozen=True)
class Outcome:
    """What became of the gradient of one step; the same on all ranks.

    applied: whether the weights moved. gradient_norm: of the backbone's gradient, summed over ranks, before clipping;
    inf where it is not finite. loss_scale: what float16's gradient was computed with, 1 in other precisions. overflow:
    not applied because that scale was too large; it is smaller now.
    """

    applied: bool
    gradient_norm: float
    loss_scale: float = 1.0
    overflow: bool = False


class Engine(ABC):
    """One step is, for each of its micro-batches,

        with engine.micro_batch(last=...):
            loss = head(engine.embed(images), identities)
            engine.backward(loss)

    and then ``engine.update(learning_rate, ...)``. Losses of micro-batches add up, each weighted by its caller, and so
    do the ranks' gradients: see :mod:`partial_fc.gradient_scale`. All ranks call everything together.
    """

    collectives: CollectiveUse | None = None  # what the exchange of gradients costs, where the engine can tell

    @abstractmethod
    def micro_batch(self, *, last: bool) -> AbstractContextManager[object]:
        """The context of one forward and backward pass; ranks exchange gradients in the ``last`` one of a step."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> embeddings [B, D] for the head; on the way back their gradient gets the engine's scale."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss``; the head's own part of it keeps its scale."""

    @abstractmethod
    def update(self, learning_rate: float, *, loss_finite: bool) -> Outcome:
        """Decide on all ranks alike, then clip and move the weights, or leave everything as it was; the gradient is
        gone afterwards. loss_finite: False where the loss already was NaN or infinite, and its gradient with it.
        """

    @abstractmethod
    def to_evaluate(self) -> nn.Module:
        """The network with its present weights, whole on this rank; all ranks call it."""

    def close(self) -> None:  # noqa: B027  # most have nothing to leave behind
        """The last call, on all ranks together."""

    def abandon(self) -> None:  # noqa: B027
        """In the place of :meth:`close` after an error, when others may not call it: alone, and it cannot fail."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Whoever leaves by an error leaves alone, all others together."""
        if kind is None:
            self.close()
        else:
            self.abandon()
