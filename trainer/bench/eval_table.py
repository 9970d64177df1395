"""The evaluation benchmark as text and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.bench.eval_problem import COMPARISON, EvalEffort, EvalRow
from trainer.evaluation.table import align

_MILLION = 1_000_000


def format_rows(rows: Sequence[EvalRow], effort: EvalEffort) -> str:
    """An aligned table under a line that says how it was measured; all rows come from one run."""
    conditions = (
        f"{effort.backbone}, {effort.image_size}x{effort.image_size}, batches of {effort.batch_size}, "
        f"{effort.images:,} images with flip test (decoder {effort.decoder}, {effort.threads} threads); "
        f"{effort.probes:,} x {effort.gallery:,} comparisons, D={effort.embedding_dim}, top {effort.k}; "
        f"medians (quartiles) of {effort.repetitions} rounds, seed {effort.seed}"
    )
    table = [("", "a second", "bare, a second", "time / bare, wall", "time / bare, CPU")]
    table += [
        (
            f"{row.method}, {row.unit}",
            _short(row.rate),
            _short(row.bare),
            f"{row.ratio:.3f}x ({row.ratio_q1:.3f}-{row.ratio_q3:.3f})",
            f"{row.cpu_ratio:.3f}x ({row.cpu_ratio_q1:.3f}-{row.cpu_ratio_q3:.3f})",
        )
        for row in rows
    ]
    lines = [conditions, *align(table)]
    for row in rows:
        if row.method == COMPARISON:
            hours = _MILLION**2 / row.rate / 3600
            lines.append(f"at this rate 1,000,000 x 1,000,000 would take {hours:,.2f} h (extrapolated, not measured)")
    return "\n".join(lines)


def write_csv(path: Path, rows: Sequence[EvalRow], effort: EvalEffort) -> None:
    """All figures, one measurement a line."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(asdict(effort) | asdict(rows[0])))
    writer.writeheader()
    writer.writerows(asdict(effort) | asdict(row) for row in rows)
    write_file(path, text.getvalue())


def _short(rate: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if rate >= size:
            return f"{rate / size:.2f} {unit}"
    return f"{rate:,.1f}"
