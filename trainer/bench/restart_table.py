"""The restart benchmark as text and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.bench.restart_problem import PARTS, RestartRow

MIB = 1 << 20
EXPLANATION = (
    "from SIGKILL of a rank to the first step of the run started again, seconds; total with quartiles, parts as medians"
)


def format_restart_rows(rows: Sequence[RestartRow]) -> str:
    """An aligned table under lines that say how it was measured; all rows come from one run."""
    if not rows:
        return "nothing was measured"
    first = rows[0].effort
    conditions = (
        f"{first.world_size} {'rank' if first.world_size == 1 else 'ranks'}, {first.backbone} at {first.image_size}x"
        f"{first.image_size}, D={first.embedding_dim}, batch {first.batch} a rank, {first.images:,} images, "
        f"{first.repetitions} restarts, seed {first.seed}"
    )
    headings = ("classes", "MiB", "total (quartiles)", *(part.replace("_", " ") for part in PARTS), "usual step")
    lines = [headings] + [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([conditions, EXPLANATION, *table])


def write_restart_csv(path: Path, rows: Sequence[RestartRow]) -> None:
    """All figures, one row a line; seconds and bytes."""
    flat = []
    for row in rows:
        values = asdict(row)
        flat.append(values.pop("effort") | {f"{part}_seconds": values["parts"][part] for part in PARTS} | values)
        flat[-1].pop("parts")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(flat[0]) if flat else [])
    writer.writeheader()
    writer.writerows(flat)
    write_file(path, text.getvalue())


def _cells(row: RestartRow) -> tuple[str, ...]:
    return (
        f"{row.effort.num_classes:,}",
        f"{row.checkpoint_bytes / MIB:,.0f}",
        f"{row.total:.1f} ({row.total_q1:.1f}-{row.total_q3:.1f})",
        *(f"{row.parts[part]:.2f}" for part in PARTS),
        f"{row.step_seconds:.2f}",
    )
