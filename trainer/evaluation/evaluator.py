"""One verification set, ready to judge a model again and again, on one rank or many.

Shapes: P pairs, 2P images, S image side, D embedding_dim.
"""

import numpy as np
from torch import Tensor, nn

from data_pipeline.pairs import Pairs
from trainer.errors import ConfigError
from trainer.evaluation.embed import embed_images
from trainer.evaluation.image_sources import Decoding
from trainer.evaluation.kept_images import keep_images
from trainer.evaluation.verification import VerificationResult, verify


class Evaluator:
    """Judges models on ``pairs``. Images are decoded once, on first use, the way ``how`` says, and kept as uint8
    [part of 2P, 3, S, S].

    ``name`` appears in results and file names. The work is cut between batches, never within one, so every image
    is embedded in the same batch at any world size: the result does not depend on the number of ranks.
    """

    def __init__(self, name: str, pairs: Pairs, how: Decoding, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise ConfigError(f"evaluation batch size {batch_size}: must be at least 1")
        self.name = name
        self.pairs = pairs
        self.how = how
        self.batch_size = batch_size
        self._decoded: tuple[range, Tensor] | None = None

    def evaluate(self, module: nn.Module) -> VerificationResult:
        """Embed all images on this process and judge the scores."""
        return self.result(self.embed_part(module, 0, 1))

    def prepare(self, rank: int = 0, world_size: int = 1) -> None:
        """Decode this rank's images now: a broken one is better found before the training than after it.

        Raises:
            DataError: an image that cannot be decoded.
        """
        part = self.part(rank, world_size)
        if self._decoded is None or self._decoded[0] != part:
            encoded = self.pairs.jpegs[part.start : part.stop]
            self._decoded = (part, keep_images(encoded, self.how, name=self.name, first=part.start))

    def embed_part(self, module: nn.Module, rank: int, world_size: int) -> Tensor:
        """Unit embeddings [len(part), D] float32, on the CPU, of this rank's images. [0, D] if it has none."""
        self.prepare(rank, world_size)
        assert self._decoded is not None
        return embed_images(module, self._decoded[1], batch_size=self.batch_size, device=self.how.device)

    def part(self, rank: int, world_size: int) -> range:
        """The images of a rank: whole batches, contiguous, in rank order; sizes differ by one batch at most."""
        images = len(self.pairs.jpegs)
        batches = -(-images // self.batch_size)
        start, stop = (batches * r // world_size * self.batch_size for r in (rank, rank + 1))
        return range(min(start, images), min(stop, images))

    def result(self, embeddings: Tensor) -> VerificationResult:
        """Judge the embeddings [2P, D] of all images: the parts of all ranks, joined in rank order."""
        if len(embeddings) != 2 * len(self.pairs.same):
            raise ConfigError(
                f"pairs {self.name}: {len(embeddings)} embeddings for {len(self.pairs.same)} pairs; "
                "join the parts of all ranks"
            )
        units = embeddings.cpu().numpy().astype(np.float64)
        scores = np.sum(units[0::2] * units[1::2], axis=1).clip(-1.0, 1.0)
        return verify(self.name, scores, self.pairs.same)
