"""The parts of a training step, each by itself: bare calls in a loop, on the loop's own batches and centers.

Shape letters: B batch of one rank, N global batch, W ranks, D embedding size.
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_pipeline import Batch
from partial_fc.collectives import ID_BYTES, Collectives
from trainer.bench.seconds import Seconds
from trainer.bench.step_problem import BACKWARD, EXCHANGE, FORWARD, GATHER, HEAD, OPTIMIZER
from trainer.checkpoint import Trained
from trainer.world import World

BUCKET_BYTES = 25 << 20  # torch's DDP exchanges gradients in pieces of this size


class PartsAlone:
    """Times every part but decoding and metrics. backbone_optimizer: makes one for a network.

    The backbone is a copy, brought up to date before it is measured, so that no weight of the loop moves. The head is
    the loop's own, because what it costs depends on how far its centers have learned: its steps here are real ones.
    """

    def __init__(
        self,
        trained: Trained,
        backbone_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        world: World,
        now: Callable[[], Seconds],
    ) -> None:
        self._trained = trained
        self._network = copy.deepcopy(trained.backbone)
        self._optimizer = backbone_optimizer(self._network)
        self._world = world
        self._now = now

    def measure(self, batches: Sequence[Batch]) -> dict[str, Seconds]:
        """Mean time of each part over the batches; all ranks call it together."""
        self._network.load_state_dict(self._trained.backbone.state_dict())
        seconds = dict.fromkeys((FORWARD, GATHER, HEAD, BACKWARD, EXCHANGE, OPTIMIZER), Seconds())
        embeddings = []
        for batch in batches:
            self._meet()
            began = self._now()
            found = self._network(batch.images)
            seconds[FORWARD] += self._now() - began
            embeddings.append(found.detach())
            del found  # its graph, before the next one
        seconds[GATHER] = self._gathers(embeddings)
        gradients = []
        for batch, found in zip(batches, embeddings, strict=True):
            head, centers, gradient = self._head_step(found, batch.identities)
            seconds[HEAD] += head
            seconds[OPTIMIZER] += centers
            gradients.append(gradient)
        for batch, gradient in zip(batches, gradients, strict=True):
            self._optimizer.zero_grad()
            found = self._network(batch.images)
            self._meet()  # as ranks come from the head together: else the last one has the machine for itself
            began = self._now()
            found.backward(gradient)
            seconds[BACKWARD] += self._now() - began
        seconds[EXCHANGE] = self._exchanges(len(batches))
        seconds[OPTIMIZER] += self._updates(len(batches))
        self._optimizer.zero_grad()
        return {part: total / len(batches) for part, total in seconds.items()}

    def _gathers(self, embeddings: Sequence[Tensor]) -> Seconds:
        """One all-gather of 8 bytes and one of B*(4D+8) for each of the batches."""
        if self._world.world_size == 1:
            return Seconds()
        packed = [
            torch.zeros(len(each), 4 * each.shape[1] + ID_BYTES, dtype=torch.uint8, device=each.device)
            for each in embeddings
        ]
        size = torch.zeros(1, dtype=torch.int64, device=packed[0].device)
        sizes = size.new_empty(self._world.world_size)
        gathered = packed[0].new_empty(self._world.world_size * len(packed[0]), packed[0].shape[1])
        self._meet()
        began = self._now()
        for each in packed:
            dist.all_gather_single(sizes, size)
            dist.all_gather_single(gathered, each)
        return self._now() - began

    def _head_step(self, embeddings: Tensor, identities: Tensor) -> tuple[Seconds, Seconds, Tensor]:
        """``(time of the head, time of CenterSGD, gradient of the embeddings [B, D])``."""
        head, centers = self._trained.head, self._trained.center_optimizer
        collectives = head.collectives
        leaf = embeddings.requires_grad_()
        head.collectives = _GatheredBefore(collectives, embeddings.detach(), identities)
        self._meet()
        try:
            began = self._now()
            head(leaf, identities).backward()
            scored = self._now()
            centers.step()
            centers.zero_grad()
            ended = self._now()
        finally:
            head.collectives = collectives
        assert leaf.grad is not None, "the head has just sent it back"
        return scored - began, ended - scored, leaf.grad

    def _exchanges(self, times: int) -> Seconds:
        """All-reduces of the whole gradient, as torch's DDP cuts it, none waiting for the one before."""
        if self._world.world_size == 1:
            return Seconds()
        flat = torch.cat([each.grad.flatten() for each in self._network.parameters() if each.grad is not None])
        buckets = torch.split(flat, BUCKET_BYTES // flat.element_size())
        self._meet()
        began = self._now()
        for _ in range(times):
            for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
                work.wait()
        return self._now() - began

    def _updates(self, times: int) -> Seconds:
        self._meet()
        began = self._now()
        for _ in range(times):
            self._optimizer.step()
        return self._now() - began

    def _meet(self) -> None:
        if self._world.world_size > 1:
            dist.barrier()


class _GatheredBefore(Collectives):
    """``collectives`` whose next batch has come from all ranks already; everything else travels as ever."""

    def __init__(self, collectives: Collectives, embeddings: Tensor, identities: Tensor) -> None:
        super().__init__(collectives.group)
        self._sizes = collectives.batch_sizes(len(embeddings), embeddings.device)
        self._batch = collectives.gather_batch(embeddings, identities, self._sizes)

    def batch_sizes(self, local: int, device: torch.device) -> list[int]:
        """B of every rank."""
        return self._sizes

    def gather_batch(self, embeddings: Tensor, identities: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        """[N, D] and [N] of all ranks."""
        return self._batch
