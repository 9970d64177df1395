"""Activation checkpointing: keep the input of each block only and compute the rest again in the backward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_block(
    block: Callable[[Tensor], Tensor], x: Tensor, *, checkpointed: bool, modules: Sequence[nn.Module] = ()
) -> Tensor:
    """``block(x)``, keeping no activation of the block but ``x`` if ``checkpointed``.

    Outputs, gradients, random numbers and running statistics are those without. ``modules``: what ``block`` runs,
    when it is not itself a module.
    """
    if not (checkpointed and torch.is_grad_enabled()):
        return block(x)
    if torch.compiler.is_compiling():
        # The compiler makes one graph of both passes, in which the statistics move once.
        compiled: Tensor = checkpoint(block, x, use_reentrant=False)
        return compiled
    inside = (block,) if isinstance(block, nn.Module) else modules

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_at_rest(inside)

    out: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return out


@contextmanager
def _statistics_at_rest(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norms inside normalise as before but do not count the batch: the first pass has counted it already.

    With momentum 0 they keep the values of their running statistics. Taking the statistics away instead would change
    what they save for the backward pass, which the checkpoint refuses.
    """
    norms = [layer for module in modules for layer in module.modules() if isinstance(layer, _BatchNorm)]
    counting = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, counting, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
