"""The gradient of all class centers without a [R, D] tensor: pairs of a screened step, or what a dense one can redo.

Shape letters: N global batch, R rows of the class shard, T rows of a tile, D embedding size, P pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from partial_fc.center_rows import CenterRows
from partial_fc.full_batch import FullBatch
from partial_fc.kept_coefficients import KeptCoefficients
from partial_fc.pairs import Pairs
from partial_fc.products import add_product, product
from partial_fc.sface import SFace
from partial_fc.workspace import Workspace


@dataclass(frozen=True)
class PairPart:
    """A screened batch: pairs sorted by row, coefficients dL/dcos. embeddings: [N, D] unit."""

    pairs: Pairs
    embeddings: Tensor


@dataclass(frozen=True)
class DensePart:
    """A dense batch: coefficients are computed again where they are needed, factor * N*dL/dcos."""

    batch: FullBatch
    loss: SFace
    factor: float
    kept: KeptCoefficients | None = None


@dataclass
class FullGradient:
    """Parts of one optimizer step, a part per micro-batch; their sum is the gradient."""

    parts: list[PairPart | DensePart]
    rows: CenterRows
    workspace: Workspace
    tile_classes: int

    def plus(self, other: "FullGradient", total_rows: int) -> "FullGradient":
        """Both together."""
        assert total_rows == len(self.rows), "gradients of one shard"
        self.parts.extend(other.parts)
        return self

    def scale_(self, factor: Tensor) -> None:
        """Multiply by a scalar, before anything is added."""
        for place, part in enumerate(self.parts):
            if isinstance(part, PairPart):
                part.pairs.coefficients.mul_(factor)
            else:
                self.parts[place] = replace(part, factor=part.factor * float(factor))

    def apply(self) -> None:
        """Touch the rows, within an optimizer step that has begun."""
        parts = [part for part in self.parts if isinstance(part, PairPart)]
        if len(parts) == len(self.parts):
            pairs, embeddings = _joined(parts)
            self.rows.touch(pairs, embeddings)
            return
        for start, sums in self.tiles():
            self.rows.touch_range(start, sums)

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """(start, sums [T, D] of dL/dcos * embedding) of all rows, tile by tile; sums are valid until the next."""
        for start in range(0, len(self.rows), self.tile_classes):
            yield start, self.tile_sums(start, min(self.tile_classes, len(self.rows) - start))

    def dense(self, total_rows: int) -> Tensor:
        """dL/dcenters as a new [R, D] tensor."""
        slots = self.rows.tables.slots
        gradient = torch.empty(total_rows, self.rows.tables.weights.shape[1], device=slots.device)
        for start, tile in self.dense_tiles():
            gradient[start : start + len(tile)] = tile
        return gradient

    def dense_tiles(self) -> Iterator[tuple[int, Tensor]]:
        """(start, dL/dcenters [T, D]) of all rows, tile by tile; a tile is the caller's."""
        rows = self.rows
        for start, sums in self.tiles():
            unit, inverse = torch.empty_like(sums), sums.new_empty(len(sums))
            rows.unit_rows(None, start, unit, inverse)
            radial = torch.linalg.vecdot(sums, unit)[:, None]
            yield start, (sums - radial * unit) * (inverse / rows.shared.scale)[:, None]

    def tile_sums(self, start: int, count: int) -> Tensor:
        """[T, D]: sum over samples of dL/dcos * embedding."""
        dim = self.rows.tables.weights.shape[1]
        sums = self.workspace.take("tile sums", count, dim)
        sums.zero_()
        unit = None
        for part in self.parts:
            if isinstance(part, PairPart):
                ends = torch.tensor([start, start + count], device=part.pairs.rows.device)
                first, last = torch.searchsorted(part.pairs.rows, ends).tolist()
                here = part.pairs.part(first, last)
                sums.index_add_(0, here.rows - start, here.coefficients[:, None] * part.embeddings[here.samples.long()])
                continue
            kept = None if part.kept is None else part.kept.of(start, count)
            if kept is not None:
                add_product(sums, kept, part.batch.unit, part.factor)
                continue
            if unit is None:
                unit = self.workspace.take("tile unit", count, dim)
                self.rows.unit_rows(None, start, unit, self.workspace.take("tile inverse", count))
            embeddings = part.batch.unit
            cosines = self.workspace.take("tile cosines", count, len(embeddings))
            product(unit, part.batch.transposed, cosines)
            self.rows.kernels.dense_coefficients(cosines, part.batch.own_in(start, count), part.loss, 0.0, None)
            add_product(sums, cosines, embeddings, part.factor)
        return sums


def _joined(parts: list[PairPart]) -> tuple[Pairs, Tensor]:
    if len(parts) == 1:
        return parts[0].pairs, parts[0].embeddings
    offsets = torch.tensor([0] + [len(part.embeddings) for part in parts[:-1]]).cumsum(0).tolist()
    rows = torch.cat([part.pairs.rows for part in parts])
    order = torch.argsort(rows, stable=True)
    samples = torch.cat([part.pairs.samples + offset for part, offset in zip(parts, offsets, strict=True)])
    pairs = Pairs(
        rows[order],
        samples[order],
        torch.cat([part.pairs.coefficients for part in parts])[order],
        torch.cat([part.pairs.cosines for part in parts])[order],
    )
    return pairs, torch.cat([part.embeddings for part in parts])
