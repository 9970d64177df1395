"""A head's step against the dense float64 truth: gradients, its own estimate of their error, count and loss.

Shape letters: C classes, D embedding size, N global batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc import HeadStats, SFace
from partial_fc.reference import dense_sface, normalize

ROUNDING = 2e-6  # what float32 arithmetic adds to an error of 1e-5, relative to the gradient; alone it makes 6e-6
ESTIMATE_SLACK = 1e-5  # float32 rounding, and an estimate of nearly nothing from few samples
LOSS_ERROR = 1e-3
CUT_ROUNDING = 1e-4  # slope 80 makes of 1e-6 rad, a float32 angle's error, this share of a coefficient


@dataclass(frozen=True)
class Truth:
    """Float64 on all pairs. embedding_gradient: [N, D]; center_gradient: [C, D]; negatives: [N, C] coefficients
    N * dL/dc_j, and -1 at the sample's own center. loss_size: what a relative error of the loss is relative to.
    """

    loss: float
    loss_size: float
    embedding_gradient: Tensor
    center_gradient: Tensor
    negatives: Tensor

    def active_between(self, cut: float) -> tuple[int, int]:
        """Fewest and most pairs that a float32 head may count at ``cut``: those close to it may fall either way."""
        low, high = ((self.negatives >= cut * factor) for factor in (1.0 + CUT_ROUNDING, 1.0 - CUT_ROUNDING))
        return int(low.sum()), int((high & (self.negatives >= 0.0)).sum())


def dense_truth(embeddings: Tensor, identities: Tensor, centers: Tensor, loss: SFace) -> Truth:
    """Loss and gradients of one batch by autograd in float64."""
    x, w = (tensor.detach().double().requires_grad_() for tensor in (embeddings, centers))
    value, intra, inter = dense_sface(x, identities, w, loss)
    torch.autograd.backward(value)
    assert x.grad is not None and w.grad is not None
    with torch.no_grad():
        negatives = loss.negative_coefficient(normalize(x) @ normalize(w).T)
    negatives[torch.arange(len(identities)), identities] = -1.0
    return Truth(value.item(), abs(intra.item()) + abs(inter.item()), x.grad, w.grad, negatives)


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Frobenius norm of the difference by that of the truth."""
    return float((found.double() - truth).norm() / truth.norm().clamp_min(1e-300))


@dataclass(frozen=True)
class Found:
    """What a head made of one global batch: gradients of all ranks in order, [N, D] and [C, D]."""

    loss: float
    embedding_gradient: Tensor
    center_gradient: Tensor
    stats: HeadStats


def check_step(found: Found, truth: Truth, tolerance: float, where: object) -> None:
    """All that a head promises of one step; ``where`` names the step in a failure."""
    stats = found.stats
    errors = {
        "embedding gradient": relative_error(found.embedding_gradient, truth.embedding_gradient),
        "center gradient": relative_error(found.center_gradient, truth.center_gradient),
    }
    context = f"{where}: {stats.mode}, estimate {stats.error:.1e}, cut {stats.cut:.1e}, {stats.active_pairs} active"
    for name, error in errors.items():
        assert error <= tolerance + ROUNDING, f"{name} off by {error:.2e}; {context}"
    largest = max(errors.values())
    assert 0.0 <= stats.error <= tolerance, context
    assert largest <= 2.0 * stats.error + ESTIMATE_SLACK, (
        f"the head's estimate is too low, truth {largest:.2e}; {context}"
    )
    fewest, most = truth.active_between(stats.cut)
    assert fewest <= stats.active_pairs <= most, f"truly active: {fewest} to {most}; {context}"
    loss_error = abs(found.loss - truth.loss) / truth.loss_size
    assert loss_error <= LOSS_ERROR, f"loss off by {loss_error:.2e}; {context}"
    assert abs(stats.loss - found.loss) <= 1e-5 * truth.loss_size, context


def expect_screened(stats: HeadStats | None, where: object) -> None:
    """The step skipped what its tolerance allows."""
    assert stats is not None
    assert stats.mode == "screened", f"{where}: {stats}"


def expect_dense(stats: HeadStats | None, where: object) -> None:
    """The step scored every pair: screening would have saved nothing."""
    assert stats is not None
    assert stats.mode == "dense", f"{where}: {stats}"


@dataclass
class DenseTwin:
    """The same centers, in float64 unless asked otherwise, under torch.optim.SGD, fed with the head's own gradients.

    It says where the head's centers are without reading them: a read makes a head bring every row up to date, which
    would hide what it makes of rows that it has not touched for some steps.
    """

    centers: Tensor
    optimizer: torch.optim.SGD

    @classmethod
    def of(cls, centers: Tensor, settings: dict[str, float], dtype: torch.dtype = torch.float64) -> "DenseTwin":
        """Starting at ``centers`` [C, D], without momentum; settings: lr, momentum and weight_decay."""
        own = centers.detach().to(dtype, copy=True).requires_grad_()
        lr, momentum, decay = (settings[key] for key in ("lr", "momentum", "weight_decay"))
        return cls(own, torch.optim.SGD([own], lr=lr, momentum=momentum, weight_decay=decay))

    @property
    def now(self) -> Tensor:
        """[C, D]."""
        return self.centers.detach()

    @property
    def momentum(self) -> Tensor:
        """[C, D]: torch.optim.SGD's buffer; zeros where it has none."""
        buffer = self.optimizer.state[self.centers].get("momentum_buffer")
        return torch.zeros_like(self.now) if buffer is None else buffer

    def step(self, gradient: Tensor | None, settings: dict[str, float] | None = None) -> None:
        """One update with ``gradient`` [C, D]; settings: new values for the parameter group."""
        self.centers.grad = None if gradient is None else gradient.to(self.centers.dtype)
        self.optimizer.param_groups[0].update(settings or {})
        self.optimizer.step()
        self.optimizer.zero_grad()


def together(parts: Sequence[Tensor]) -> Tensor:
    """Rows of all ranks, in order."""
    return torch.cat(list(parts))
