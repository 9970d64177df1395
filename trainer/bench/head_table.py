"""The head benchmark as text, CSV and picture."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipeline.pending_file import write_file
from trainer.bench.head_bench import Row

MIB = 1 << 20


def format_rows(rows: Sequence[Row]) -> str:
    """An aligned table; ratios are step over bare float32 product, median (smallest-largest)."""
    head = ("classes", "D", "B", "spread", "ranks", "method", "step s", "product s", "ratio", "extra MiB", "moved KiB")
    lines = [head] + [
        (
            f"{row.num_classes:,}",
            str(row.embedding_dim),
            str(row.batch),
            f"{row.spread:.2f}",
            str(row.world_size),
            row.method,
            f"{row.seconds:.4f}",
            f"{row.product_seconds:.4f}",
            f"{row.ratio:.2f}x ({row.ratio_min:.2f}-{row.ratio_max:.2f})",
            f"{row.extra_bytes / MIB:,.0f}",
            f"{row.bytes_moved / 1024:,.0f}",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All figures, one row a line; seconds and bytes."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_file(path, text.getvalue())


def write_picture(path: Path, rows: Sequence[Row]) -> None:
    """Ratio over number of classes, a line per method and (D, B, spread, ranks)."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    series: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row.method}, D={row.embedding_dim}, B={row.batch}, spread {row.spread:g}, ranks {row.world_size}"
        series.setdefault(name, []).append(row)
    for name, line in series.items():
        ordered = sorted(line, key=lambda row: row.num_classes)
        ratios = [row.ratio for row in ordered]
        below = [row.ratio - row.ratio_min for row in ordered]
        above = [row.ratio_max - row.ratio for row in ordered]
        axes.errorbar(
            [row.num_classes for row in ordered], ratios, yerr=[below, above], marker="o", capsize=3, label=name
        )
    axes.axhline(1.0, color="gray", linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="classes", ylabel="step / bare float32 product")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_file(path, buffer.getvalue())
