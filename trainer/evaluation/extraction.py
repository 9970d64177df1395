"""Embeddings of many images on all ranks, through the decoder of training.

Shapes: N rows, n rows of this rank, B images of a forward pass, D embedding_dim, S image side.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from trainer.each_rank import each_rank
from trainer.errors import ConfigError
from trainer.evaluation.embed import evaluation_mode
from trainer.evaluation.image_sources import Decoding, ImageSource
from trainer.evaluation.row_blocks import RowBlocks, row_blocks
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.evaluation.template_pooling import TemplateImages
from trainer.world import World

Positions = NDArray[np.int64]


class Extractor:
    """Embeds images of a source by ``module``, ``batch_size`` at a time, each with its mirror image.

    An image is embedded in the same batch at any number of ranks: batches lie within blocks of rows.
    """

    def __init__(self, module: nn.Module, how: Decoding, *, batch_size: int, world: World) -> None:
        self._module = module
        self.how = how
        self.batch_size = batch_size
        self._world = world

    def rows(self, source: ImageSource, positions: Positions, what: str) -> ShardedRows:
        """Unit embeddings of the images at ``positions`` [N], one a row. A collective.

        Raises:
            ConfigError: on all ranks, for an image that is missing or cannot be used, and for a model whose embeddings
                are not finite.
        """
        blocks = row_blocks(len(positions), self._world.world_size, multiple=self.batch_size)
        mine = blocks.rows_of(self._world.rank)
        images = positions[mine.start : mine.stop]
        batches = [
            positions[part]
            for number in blocks.of_rank(self._world.rank)
            for part in _slices(blocks.block(number), self.batch_size)
        ]

        def embed() -> Tensor:
            found: Tensor | None = None
            done = 0
            for raw in self._embeddings(source, batches, what):
                if found is None:
                    found = torch.empty(len(mine), raw.shape[1])
                found[done : done + len(raw)] = _unit(raw)
                done += len(raw)
            return self._nothing() if found is None else found

        each_rank(self._world, lambda: source.check(images), what)
        return ShardedRows(blocks, each_rank(self._world, embed, what), self._world)

    def templates(self, source: ImageSource, templates: TemplateImages, what: str) -> ShardedRows:
        """Unit embeddings of templates [N], one a row: see ``template_pooling``. A collective. Raises as ``rows``."""
        blocks = row_blocks(len(templates), self._world.world_size, images=np.diff(templates.starts))
        mine = blocks.rows_of(self._world.rank)
        first, last = templates.starts[mine.start], templates.starts[mine.stop]
        batches, places = self._template_batches(templates, blocks)

        def embed() -> Tensor:
            sums: Tensor | None = None
            for raw, place in zip(self._embeddings(source, batches, what), places, strict=True):
                if sums is None:
                    sums = torch.zeros(len(mine), raw.shape[1], dtype=torch.float64)
                rows = torch.from_numpy(templates.rows[place] - mine.start)
                sums.index_add_(0, rows, raw * torch.from_numpy(templates.weights[place])[:, None])
            return _unit(sums) if sums is not None else self._nothing()

        each_rank(self._world, lambda: source.check(templates.images[first:last]), what)
        return ShardedRows(blocks, each_rank(self._world, embed, what), self._world)

    def _template_batches(self, templates: TemplateImages, blocks: RowBlocks) -> tuple[list[Positions], list[slice]]:
        places = []
        for number in blocks.of_rank(self._world.rank):
            rows = blocks.block(number)
            places += _slices(
                range(int(templates.starts[rows.start]), int(templates.starts[rows.stop])), self.batch_size
            )
        return [templates.images[place] for place in places], places

    def _embeddings(self, source: ImageSource, batches: Sequence[Positions], what: str) -> Iterator[Tensor]:
        """e = f(x) + f(flip x) of each batch: [B, D] float64 on the CPU."""
        progress = tqdm(
            total=sum(map(len, batches)), unit="image", desc=what, disable=None if self._world.is_first else True
        )
        with evaluation_mode(self._module), progress:
            for images in source.batches(batches, self.how):
                with torch.inference_mode():
                    embedding = (self._module(images) + self._module(images.flip(3))).cpu().double()
                if not embedding.isfinite().all():
                    raise ConfigError(
                        f"{what}: the model's embeddings are not finite; take an earlier checkpoint or a lower "
                        "learning rate"
                    )
                progress.update(len(images))
                yield embedding.clone()  # outside of inference mode: an ordinary tensor

    def _nothing(self) -> Tensor:
        """[0, D], for a rank without images."""
        side = self.how.image_size
        with evaluation_mode(self._module), torch.inference_mode():
            dim = self._module(torch.zeros(1, 3, side, side, device=self.how.device)).shape[1]
        return torch.zeros(0, dim)


def _slices(rows: range, size: int) -> list[slice]:
    return [slice(low, min(low + size, rows.stop)) for low in range(rows.start, rows.stop, size)]


def _unit(rows: Tensor) -> Tensor:
    """[n, D] float64 -> float32 of length 1 (0 stays 0)."""
    return nn.functional.normalize(rows, eps=1e-300).float()
