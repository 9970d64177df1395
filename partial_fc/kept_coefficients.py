"""Coefficients of a dense step that its optimizer step need not compute again: as many as a bounded buffer holds.

Shape letters: K rows kept, N global batch, R rows of the class shard, D embedding size.
"""

from dataclasses import dataclass

from torch import Tensor

from partial_fc.workspace import Workspace

SHARE_OF_CENTERS = 0.25  # the buffer's size against the centers'
SHARE_OF_ROWS = 0.5  # never the N x R matrix, however small the batch
NAME = "kept coefficients"


@dataclass(frozen=True)
class KeptCoefficients:
    """values: [K, N], of the first K rows; valid until the buffer is handed out again."""

    values: Tensor
    turn: int
    keeper: "CoefficientKeeper"

    def of(self, start: int, count: int) -> Tensor | None:
        """[count, N] for the rows from ``start`` on, or None where they are not kept (any more)."""
        if self.turn != self.keeper.turn or start + count > len(self.values):
            return None
        return self.values[start : start + count]


class CoefficientKeeper:
    """Hands the one buffer out, and tells whom it belongs to."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.turn = 0

    def keep(self, rows: int, dim: int, batch: int, tile: int) -> KeptCoefficients:
        """Room for whole tiles of a batch against R rows of D; whoever had it before has lost it."""
        self.turn += 1
        most = min(int(SHARE_OF_CENTERS * rows * dim / batch), int(SHARE_OF_ROWS * rows)) // tile * tile
        return KeptCoefficients(self._workspace.take(NAME, most, batch), self.turn, self)

    def release(self) -> None:
        """Give the memory back: no dense step is in sight."""
        self.turn += 1
        self._workspace.drop(NAME)
