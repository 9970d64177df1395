"""Centers and embeddings whose cosines spread as in a trained model, or all of whose pairs are active.

Shape letters: C classes, R rows of one rank, N global batch, D embedding size, m effective dimension.
"""

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from partial_fc import PartialFC

POSITIVE_ANGLE = 0.9  # rad: where SFace's a holds the positives of a model in training
SHARED = 0.8  # of each squared norm along one direction, if shared: no two cosines can then be below 2 * 0.8 - 1
BLOCK = 16384


def effective_dimension(spread: float, embedding_dim: int) -> int:
    """m such that random unit vectors in m dimensions have cosines of standard deviation ``spread`` = 1/sqrt(m).

    0.06 (m = 278) as in well-trained 512-d models, 0.10 (m = 100) as in weak or early ones; at most D.
    """
    return min(embedding_dim, max(2, round(1.0 / spread**2)))


class Geometry:
    """A random m-dimensional subspace of D dimensions that centers and embeddings share; a function of the seed.

    all_active: besides, all of them share a direction, so strongly that every cosine is above 0.6, where
    SFace's b = 1.2 rad pushes with full force: cosines are 0.8 with a fifth of the spread.
    """

    def __init__(self, embedding_dim: int, spread: float, seed: int, *, all_active: bool = False) -> None:
        dimension = effective_dimension(spread, embedding_dim)
        self._seed = seed
        self._shared: Tensor | None = None  # [D]
        drawn = torch.randn(embedding_dim, embedding_dim, generator=_generator(seed, "basis"))
        directions = torch.linalg.qr(drawn).Q.T
        if all_active:
            self._shared, directions = directions[0], directions[1:]
        self._basis = directions[:dimension].contiguous()  # [m, D]

    def fill_centers(self, rows: Tensor, first_class: int) -> None:
        """Write centers of norm about 1 into ``rows`` [R, D] in place, block by block.

        Row j is that of global class ``first_class`` + j, the same for any number of ranks.
        """
        for begin, drawn in self._drawn(first_class, first_class + len(rows), rows.device):
            self._place(drawn, rows[begin - first_class : begin - first_class + len(drawn)])

    def fill_head(self, head: PartialFC) -> None:
        """The same for a head of this rank, whatever its centers are stored in: no copy of all of them is made."""
        first = head.class_shard.start
        for begin, drawn in self._drawn(first, head.class_shard.stop, head.device):
            out = torch.empty(len(drawn), self._basis.shape[1], device=drawn.device)
            self._place(drawn, out)
            head.write_centers(begin - first, out)

    def _drawn(self, first_class: int, last: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
        """(class, [n, m] coordinates of centers from it on), block by block."""
        for block in range(first_class // BLOCK, math.ceil(last / BLOCK)):
            generator = _generator(self._seed, f"centers {block}")
            drawn = torch.randn(BLOCK, len(self._basis), generator=generator)
            begin, end = max(first_class, block * BLOCK), min(last, (block + 1) * BLOCK)
            drawn = drawn[begin - block * BLOCK : end - block * BLOCK].div_(math.sqrt(len(self._basis)))
            yield begin, drawn.to(device)

    def _place(self, drawn: Tensor, out: Tensor) -> None:
        torch.mm(drawn, self._basis.to(out.device), out=out)
        if self._shared is not None:
            shared = self._shared.to(out.device)
            normalize(out, out=out).mul_(math.sqrt(1 - SHARED)).add_(shared, alpha=math.sqrt(SHARED))

    def embeddings(self, own: Tensor, generator: torch.Generator) -> Tensor:
        """[N, D] of norm 1; own: [N, D], each one's own center.

        Each lies at 0.9 rad from its own center in a random direction within the subspace. Where all pairs are
        active, it is a random one around the shared direction, as embeddings of a collapsed model are.
        """
        direction = torch.randn(len(own), len(self._basis), generator=generator) @ self._basis
        if self._shared is not None:
            return math.sqrt(1 - SHARED) * normalize(direction) + math.sqrt(SHARED) * self._shared
        own = normalize(own)
        direction -= (direction * own).sum(1, keepdim=True) * own
        return math.cos(POSITIVE_ANGLE) * own + math.sin(POSITIVE_ANGLE) * normalize(direction)


def _generator(seed: int, purpose: str) -> torch.Generator:
    # torch seeds from 32 bits alone: numbers put side by side in 64 would collide.
    digest = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))
