"""One step of a head against the bare float32 logits product, both timed in turn.

Shape letters: C classes, R this rank's, B this rank's batch, N global batch, D embedding size.
"""

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc import CenterSGD, CosFace, PartialFC, SFace
from trainer.bench.geometry import draw_centers, draw_embeddings, effective_dimension
from trainer.bench.peak_memory import peak_bytes, reset_peak
from trainer.bench.plain_head import PlainSFaceHead
from trainer.world import World

PLAIN = "sface-plain-torch"  # one process, whole matrices: the script that users start from
METHODS = ("sface", PLAIN, "cosface", "cosface-0.1")
PRODUCT_TILE = 8192


@dataclass(frozen=True)
class Problem:
    """One size. spread: standard deviation of negative cosines. batch: per rank."""

    num_classes: int
    embedding_dim: int
    batch: int
    spread: float


@dataclass(frozen=True)
class Row:
    """One line of the table. Seconds and ratios are medians over repetitions, with the smallest and largest ratio.

    extra_bytes: peak memory beyond the float32 centers. bytes_moved: handed to collectives in a step.
    """

    method: str
    num_classes: int
    embedding_dim: int
    batch: int
    spread: float
    world_size: int
    seconds: float
    product_seconds: float
    ratio: float
    ratio_min: float
    ratio_max: float
    extra_bytes: int
    bytes_moved: int


def bench_head(
    problem: Problem, methods: tuple[str, ...], *, world: World, repetitions: int, now: Callable[[], float]
) -> Iterator[Row]:
    """Measure each method on ``problem``; every rank runs it, rows hold this rank's own times.

    A step is forward, backward and update with momentum 0.9 and decay 5e-4. Each repetition times the bare product
    of this rank's centers with the global batch, then a step; the ratio is taken pair by pair.
    """
    for method in methods:
        yield _measure(method, problem, world, repetitions, now)


def _measure(method: str, problem: Problem, world: World, repetitions: int, now: Callable[[], float]) -> Row:
    gc.collect()
    reset_peak()
    before = peak_bytes()
    bench = _Bench(method, problem, world)
    product = _bare_product(bench.centers, problem.batch * world.world_size)
    for _ in range(2):  # buffers and momentum come into being
        product()
        bench.draw_batch()
        bench.step()
    gc.collect()
    reset_peak()
    bench.step()
    extra = max(0, peak_bytes() - before - bench.centers.numel() * bench.centers.element_size())
    pairs = []
    for _ in range(repetitions):
        bench.draw_batch()
        pairs.append((_timed(product, now), _timed(bench.step, now)))
    ratios = [step_seconds / product_seconds for product_seconds, step_seconds in pairs]
    return Row(
        method=method,
        num_classes=problem.num_classes,
        embedding_dim=problem.embedding_dim,
        batch=problem.batch,
        spread=problem.spread,
        world_size=world.world_size,
        seconds=statistics.median(seconds for _, seconds in pairs),
        product_seconds=statistics.median(seconds for seconds, _ in pairs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        extra_bytes=extra,
        bytes_moved=bench.bytes_moved,
    )


def _timed(action: Callable[[], None], now: Callable[[], float]) -> float:
    began = now()
    action()
    return now() - began


def _bare_product(centers: Tensor, global_batch: int) -> Callable[[], None]:
    """The float32 logits product [R, D] x [D, N] alone, tile by tile into one buffer."""
    embeddings = torch.randn(centers.shape[1], global_batch)
    logits = torch.empty(PRODUCT_TILE, global_batch)

    @torch.no_grad()
    def product() -> None:
        for tile in torch.split(centers, PRODUCT_TILE):
            torch.mm(tile, embeddings, out=logits[: len(tile)])

    return product


class _Bench:
    """One method at one size. centers: [R, D] of this rank, moving as it trains."""

    def __init__(self, method: str, problem: Problem, world: World) -> None:
        self._batch = problem.batch
        self._random = torch.Generator().manual_seed(11 + world.rank)
        dimension = effective_dimension(problem.spread, problem.embedding_dim)
        generator = torch.Generator().manual_seed(7)
        self._head: PartialFC | None = None
        self._model: torch.nn.Module
        self._optimizer: torch.optim.Optimizer
        if method == PLAIN:
            drawn = draw_centers(problem.num_classes, problem.embedding_dim, dimension, generator)
            self._model = PlainSFaceHead(drawn, SFace())
            self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
            self.centers, self._start = self._model.centers.detach(), 0
        else:
            loss = SFace() if method == "sface" else CosFace()
            rate = 0.1 if method == "cosface-0.1" else 1.0
            self._model = self._head = head = PartialFC(
                problem.num_classes, problem.embedding_dim, loss, sample_rate=rate
            )
            head.load_centers(draw_centers(len(head.class_shard), problem.embedding_dim, dimension, generator))
            self._optimizer = CenterSGD(head, lr=0.1, momentum=0.9, weight_decay=5e-4)
            self.centers, self._start = head.centers.detach(), head.class_shard.start
        self.draw_batch()

    def draw_batch(self) -> None:
        """Another batch of this rank's own classes, positives at 0.9 rad."""
        rows = torch.randint(len(self.centers), (self._batch,), generator=self._random)
        self._embeddings = draw_embeddings(self.centers, rows, self._random)
        self._identities = rows + self._start

    def step(self) -> None:
        """Forward, backward, update."""
        self._model(self._embeddings.requires_grad_(), self._identities).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    @property
    def bytes_moved(self) -> int:
        """Payload that the last step handed to collectives."""
        return 0 if self._head is None or self._head.stats is None else self._head.stats.bytes_moved
