"""The mean direction of each identity's images, by the trained backbone, over all ranks.

Shape letters: M images in order of their identities, B images of a forward pass, n identities of a window, D embedding
size, W ranks.

Batches of B are cut from the list of all images, and each is embedded by one rank, so an image is always embedded
beside the same others. Unit embeddings are added up as whole numbers of 2^-40, which no order of adding changes. The
same images therefore give the same directions, to the last bit, on any number of ranks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_pipeline import Batch, RecordReader
from data_pipeline.listed import listed_batches
from partial_fc import partition
from trainer.config import DataConfig
from trainer.each_rank import each_rank
from trainer.errors import ConfigError
from trainer.evaluation.embed import evaluation_mode
from trainer.world import World

BUFFER_BYTES = 64 << 20  # of the sums of a window
BATCHES_A_RANK = 4  # of a window: whoever asks the run to stop waits for no more
UNIT = 2.0**40


@dataclass(frozen=True)
class Directions:
    """identities: [n] int64, ascending; directions: [n, D] float64 of length 1, or 0 where no image could be used."""

    identities: Tensor
    directions: Tensor


class ImageEmbedder:
    """Embeds chosen images of ``reader`` by ``backbone`` in evaluation mode; ``between`` is called between windows."""

    def __init__(
        self,
        backbone: nn.Module,
        reader: RecordReader,
        data: DataConfig,
        *,
        embedding_dim: int,
        batch_size: int,
        world: World,
        between: Callable[[int], None] = lambda images: None,
    ) -> None:
        self._backbone = backbone
        self._reader = reader
        self._data = data
        self._dim = embedding_dim
        self._batch = batch_size
        self._world = world
        self._between = between

    def mean_directions(self, images: Tensor, whose: Tensor) -> Iterator[Directions]:
        """sum_i e_i / |e_i|, brought to length 1, of the images [M] of each identity; ``whose`` [M], ascending.

        Some identities at a time, each once, the same on every rank; all ranks iterate to the end. Bad images are left
        out where the data set's configuration says so. Raises ConfigError on all ranks for a bad image otherwise, and
        for a backbone whose embeddings are not finite.
        """
        room = max(1, BUFFER_BYTES // (8 * self._dim * self._batch))
        step = min(room, BATCHES_A_RANK * self._world.world_size) * self._batch
        windows = [range(first, min(first + step, len(images))) for first in range(0, len(images), step)]
        mine = [self._share(window) for window in windows]
        positions = torch.cat([images[part.start : part.stop] for part in mine]) if mine else images
        batches = self._load(positions)
        open_sum: tuple[int, Tensor] | None = None  # of the identity that may go on in the next window
        for window, part in zip(windows, mine, strict=True):
            identities, numbers = torch.unique(whose[window.start : window.stop], return_inverse=True)
            numbers = numbers[part.start - window.start : part.stop - window.start]
            add = partial(self._sums, batches, images[part.start : part.stop], numbers, len(identities))
            sums = each_rank(self._world, add, "growth")
            if self._world.world_size > 1:
                dist.all_reduce(sums)
            if open_sum is not None:
                if open_sum[0] == int(identities[0]):
                    sums[0] += open_sum[1]
                else:
                    yield _directions(torch.tensor([open_sum[0]]), open_sum[1][None])
            open_sum = int(identities[-1]), sums[-1].clone()
            if len(identities) > 1:
                yield _directions(identities[:-1], sums[:-1])
            self._between(window.stop)
        if open_sum is not None:
            yield _directions(torch.tensor([open_sum[0]]), open_sum[1][None])

    def _share(self, window: range) -> range:
        """The images of a window that this rank embeds: whole batches, neighbours."""
        batches = -(-len(window) // self._batch)
        begin, end = partition(batches, self._world.world_size, self._world.rank)
        return range(
            min(window.start + begin * self._batch, window.stop), min(window.start + end * self._batch, window.stop)
        )

    def _load(self, positions: Tensor) -> Iterator[Batch]:
        data = self._data
        return listed_batches(
            self._reader,
            positions.numpy(),
            batch_size=self._batch,
            decoder=data.decoder,
            device=self._world.device,
            image_size=data.image_size,
            num_threads=data.threads,
            prefetch=data.prefetch,
            bad_images=data.bad_images,
            max_bad_images=data.max_bad_images,
            wrong_size=data.wrong_size,
        )

    def _sums(self, batches: Iterator[Batch], wanted: Tensor, numbers: Tensor, count: int) -> Tensor:
        """Sums [count, D] int64 of the next images; ``numbers`` says which sum each is added to."""
        sums = torch.zeros(count, self._dim, dtype=torch.int64)
        done = 0
        with evaluation_mode(self._backbone), torch.inference_mode():
            for batch in islice(batches, -(-len(numbers) // self._batch)):
                embeddings = self._backbone(batch.images).cpu().double()
                if not bool(embeddings.isfinite().all()):
                    raise ConfigError(
                        "growth: the old run's backbone gives embeddings that are not finite: it has diverged, "
                        "grow from an earlier checkpoint"
                    )
                here = slice(done, done + len(embeddings))
                # A stand-in for a bad image is somebody else's.
                right = batch.indices.cpu() == wanted[here]
                units = nn.functional.normalize(embeddings[right], eps=1e-300)
                sums.index_add_(0, numbers[here][right], (units * UNIT).round().long())
                done += len(embeddings)
        return sums


def _directions(identities: Tensor, sums: Tensor) -> Directions:
    return Directions(identities, nn.functional.normalize(sums.double(), eps=1e-300))
