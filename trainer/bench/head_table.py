"""The head benchmark as text and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.bench.problem import Row

MIB = 1 << 20
EXPLANATION = "ratio: to the bare float32 product, timed in turn; MiB: peak of a rank beyond its centers as stored"
HEADINGS = (
    "classes",
    "D",
    "B",
    "method",
    "spread",
    "tolerance",
    "stored in",
    "centers MiB",
    "step s (quartiles)",
    "product s",
    "ratio (quartiles)",
    "mode",
    "active/sample",
    "error",
    "extra MiB",
    "/centers",
    "ever MiB",
    "moved KiB",
)


def format_rows(rows: Sequence[Row]) -> str:
    """An aligned table under a line that says how it was measured; all rows come from one run."""
    if not rows:
        return "nothing was measured"
    lines = [HEADINGS] + [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([conditions(rows[0]), EXPLANATION, *table])


def conditions(row: Row) -> str:
    """What all rows of a run share: ranks, threads, repetitions, seed."""
    ranks, threads = _count(row.world_size, "rank"), _count(row.threads, "thread")
    each = f"{threads} each" if row.device == "cpu" else f"{row.device} each"
    timed, warmup = _count(row.repetitions, "repetition"), _count(row.warmup, "warm-up step")
    return f"{ranks}, {each}, B per rank; median and quartiles of {timed} after {warmup}, seed {row.seed}"


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All figures, one row a line; seconds and bytes; empty where a method has no such figure."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_file(path, text.getvalue())


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.num_classes:,}",
        str(row.embedding_dim),
        str(row.batch),
        row.method,
        _or_dash(row.spread, ".2f"),
        _or_dash(row.tolerance, "g"),
        row.center_dtype if row.center_memory == "device" else f"{row.center_dtype}, {row.center_memory}",
        f"{row.centers_bytes / MIB:,.0f}",
        f"{row.seconds:.4f} ({row.seconds_q1:.4f}-{row.seconds_q3:.4f})",
        f"{row.product_seconds:.4f}",
        f"{row.ratio:.2f}x ({row.ratio_q1:.2f}-{row.ratio_q3:.2f})",
        row.mode or "-",
        _or_dash(row.active_pairs, ",.1f"),
        _or_dash(row.error, ".1e"),
        _or_dash(None if row.extra_bytes is None else row.extra_bytes / MIB, ",.0f"),
        _or_dash(row.extra_over_centers, ".2f") + ("x" if row.extra_over_centers is not None else ""),
        _or_dash(None if row.extra_bytes_ever is None else row.extra_bytes_ever / MIB, ",.0f"),
        f"{row.bytes_moved / 1024:,.0f}",
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
