"""The checkpoint benchmark as text and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.bench.checkpoint_problem import CheckpointRow

MIB = 1 << 20
EXPLANATION = (
    "sync: training waits for a synchronous checkpoint; stall: for an asynchronous one, complete after a while; "
    "cost: the stall and what steps took longer meanwhile"
)
HEADINGS = (
    "classes", "D", "B", "MiB", "copy MiB", "step s", "sync s (quartiles)", "stall s (quartiles)", "complete s",
    "stall/sync (quartiles)", "stall/step", "cost/sync",
)  # fmt: skip


def format_checkpoint_rows(rows: Sequence[CheckpointRow]) -> str:
    """An aligned table under lines that say how it was measured; all rows come from one run."""
    if not rows:
        return "nothing was measured"
    first = rows[0]
    conditions = (
        f"{first.world_size} {'rank' if first.world_size == 1 else 'ranks'}, {first.threads} "
        f"{'thread' if first.threads == 1 else 'threads'} each, backbone {first.backbone} saved, not trained; median "
        f"and quartiles of {first.repetitions} rounds after {first.warmup} steps, seed {first.seed}"
    )
    lines = [HEADINGS] + [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([conditions, EXPLANATION, *table])


def write_checkpoint_csv(path: Path, rows: Sequence[CheckpointRow]) -> None:
    """All figures, one row a line; seconds and bytes."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(CheckpointRow)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_file(path, text.getvalue())


def _cells(row: CheckpointRow) -> tuple[str, ...]:
    return (
        f"{row.num_classes:,}",
        str(row.embedding_dim),
        str(row.batch),
        f"{row.checkpoint_bytes / MIB:,.0f}",
        f"{row.copy_bytes / MIB:,.0f}",
        f"{row.step_seconds:.3f}",
        f"{row.sync_seconds:.2f} ({row.sync_seconds_q1:.2f}-{row.sync_seconds_q3:.2f})",
        f"{row.stall_seconds:.3f} ({row.stall_seconds_q1:.3f}-{row.stall_seconds_q3:.3f})",
        f"{row.complete_seconds:.2f}",
        f"{row.stall_over_sync:.1%} ({row.stall_over_sync_q1:.1%}-{row.stall_over_sync_q3:.1%})",
        f"{row.stall_over_step:.2f}",
        f"{row.cost_over_sync:.0%}",
    )
