"""Pairs of a class center and a sample whose coefficient matters: the sparse gradient of a screened step.

Shape letters: P pairs, N global batch, R rows of the class shard, D embedding size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.workspace import Workspace


@dataclass
class Pairs:
    """rows: [P] int64, samples: [P] int32, coefficients: [P] float32 (N * dL/dcos), cosines: [P] float32."""

    rows: Tensor
    samples: Tensor
    coefficients: Tensor
    cosines: Tensor

    @classmethod
    def empty(cls, capacity: int, device: torch.device) -> "Pairs":
        """Room for ``capacity`` pairs, not filled."""
        return cls(
            torch.empty(capacity, dtype=torch.int64, device=device),
            torch.empty(capacity, dtype=torch.int32, device=device),
            torch.empty(capacity, device=device),
            torch.empty(capacity, device=device),
        )

    @classmethod
    def from_workspace(cls, workspace: Workspace, capacity: int) -> "Pairs":
        """Room for ``capacity`` pairs in memory that is kept from step to step."""
        return cls(
            workspace.take("pair rows", capacity, dtype=torch.int64),
            workspace.take("pair samples", capacity, dtype=torch.int32),
            workspace.take("pair coefficients", capacity),
            workspace.take("pair cosines", capacity),
        )

    def clone(self) -> "Pairs":
        """The same in new memory."""
        return Pairs(self.rows.clone(), self.samples.clone(), self.coefficients.clone(), self.cosines.clone())

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, begin: int, end: int) -> "Pairs":
        """Pairs [begin, end): views."""
        return Pairs(
            self.rows[begin:end], self.samples[begin:end], self.coefficients[begin:end], self.cosines[begin:end]
        )

    def copy_(self, begin: int, source: "Pairs") -> None:
        """Write ``source`` from place ``begin`` on."""
        here = self.part(begin, begin + len(source))
        here.rows.copy_(source.rows)
        here.samples.copy_(source.samples)
        here.coefficients.copy_(source.coefficients)
        here.cosines.copy_(source.cosines)


class PairBuffer:
    """Pairs that come tile by tile, in memory that is kept from step to step and grows to the largest step."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._pairs = Pairs.from_workspace(workspace, 0)
        self._filled = 0

    def room(self, count: int) -> Pairs:
        """Behind the pairs kept so far, room for ``count``; valid until the next call."""
        wanted = self._filled + count
        if len(self._pairs) < wanted:
            # Doubled, so that few steps copy; memory that is never written is never resident.
            kept = self._pairs.part(0, self._filled)
            self._pairs = Pairs.from_workspace(self._workspace, max(wanted, 2 * self._filled))
            if kept.rows.data_ptr() != self._pairs.rows.data_ptr():
                self._pairs.copy_(0, kept)
        return self._pairs.part(self._filled, wanted)

    def add(self, pairs: Pairs) -> None:
        """Keep a copy of ``pairs``."""
        self.room(len(pairs)).copy_(0, pairs)
        self.keep(len(pairs))

    def keep(self, count: int) -> None:
        """The first ``count`` of the last room stay."""
        self._filled += count

    def taken(self) -> Pairs:
        """All that stayed, in memory of their own."""
        return self._pairs.part(0, self._filled).clone()


class ScoreSums:
    """Sums over scored pairs, float64; names in the order of native/scores.cpp."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(8, dtype=torch.float64, device=device)

    INTER, INTRA, KEPT, SCORED, OWN_ANGLES, OWN_PAIRS, NEGATIVE_FORCE, OWN_FORCE = range(8)
