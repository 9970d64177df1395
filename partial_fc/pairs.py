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

    @classmethod
    def joined(cls, parts: "list[Pairs]", device: torch.device) -> "Pairs":
        """One after the other, in new memory."""
        if not parts:
            return cls.empty(0, device)
        return cls(
            torch.cat([part.rows for part in parts]),
            torch.cat([part.samples for part in parts]),
            torch.cat([part.coefficients for part in parts]),
            torch.cat([part.cosines for part in parts]),
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


class ScoreSums:
    """Sums over scored pairs, float64; names in the order of native/scores.cpp."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(8, dtype=torch.float64, device=device)

    INTER, INTRA, KEPT, SCORED, OWN_ANGLES, OWN_PAIRS, NEGATIVE_FORCE, OWN_FORCE = range(8)
