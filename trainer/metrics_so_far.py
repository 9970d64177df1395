"""What a run has counted since its first step, over all its restarts: saved with every checkpoint.

Prometheus counters (``pfc_samples_total``) begin at 0 in every process, as counters do: rates over a restart are then
right. One that went on from the checkpoint would fall back by the steps that a killed run had taken since, and what
falls is taken for a restart from 0: the rate would jump by the whole run. The totals are gauges (``pfc_run_samples``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

TOTALS, JOURNAL = "totals", "journal"


@dataclass
class RunTotals:
    """Of one rank; those of all ranks add up to the run's, but for seconds and head_steps, which all have alike.

    samples: images trained on. seconds: spent in steps. head_steps: steps by the head's path. skipped_records: bad
    images replaced, by reason.
    """

    samples: int = 0
    seconds: float = 0.0
    head_steps: dict[str, int] = field(default_factory=dict)
    skipped_records: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "RunTotals":
        """What :meth:`state` gave; nothing counted from nothing."""
        return cls(
            samples=int(state.get("samples", 0)),
            seconds=float(state.get("seconds", 0.0)),
            head_steps={str(mode): int(count) for mode, count in state.get("head_steps", {}).items()},
            skipped_records={str(reason): int(count) for reason, count in state.get("skipped_records", {}).items()},
        )

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def add_step(self, *, local_samples: int, seconds: float, mode: str) -> None:
        """One more step."""
        self.samples += local_samples
        self.seconds += seconds
        self.head_steps[mode] = self.head_steps.get(mode, 0) + 1

    def share_of(self, rank: int, world_size: int) -> "RunTotals":
        """The part of one of ``world_size`` ranks in totals of all; the parts add up."""

        def part(total: int) -> int:
            return total // world_size + (rank < total % world_size)

        return RunTotals(
            samples=part(self.samples),
            seconds=self.seconds,
            head_steps=dict(self.head_steps),
            skipped_records={reason: part(count) for reason, count in self.skipped_records.items()},
        )


def share_out(saved: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
    """What rank ``rank`` goes on from: its own metrics, or after a change of ranks its share of all ranks'."""
    if len(saved) == world_size:
        return dict(saved[rank])
    all_totals = [RunTotals.from_state(each.get(TOTALS, {})) for each in saved]
    whole = RunTotals(0, all_totals[0].seconds, all_totals[0].head_steps)
    for each in all_totals:
        whole.samples += each.samples
        for reason, count in each.skipped_records.items():
            whole.skipped_records[reason] = whole.skipped_records.get(reason, 0) + count
    # Averages of the steps since the last line of metrics.jsonl are those of all ranks; rank 0 writes the line.
    return {TOTALS: whole.share_of(rank, world_size).state(), JOURNAL: saved[0].get(JOURNAL, {})}
