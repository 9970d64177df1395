"""The data benchmark as text and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.bench.data_problem import DataEffort, OpeningRow, ThroughputRow

MIB = 1 << 20


def format_throughput(rows: Sequence[ThroughputRow], effort: DataEffort, source: str) -> str:
    """An aligned table under two lines that say how it was measured; all rows come from one run."""
    table = [("method", "images/s (quartiles)", "of bare DALI (quartiles)", "of PIL DataLoader")]
    table += [
        (
            row.method,
            f"{row.images_per_second:,.0f} ({row.images_per_second_q1:,.0f}-{row.images_per_second_q3:,.0f})",
            "-" if row.over_bare is None else f"{row.over_bare:.2f}x ({row.over_bare_q1:.2f}-{row.over_bare_q3:.2f})",
            "-" if row.over_pil is None else f"{row.over_pil:.2f}x",
        )
        for row in rows
    ]
    return "\n".join([source, conditions(effort), *_aligned(table)])


def conditions(effort: DataEffort) -> str:
    """What all loaders of a run share."""
    return (
        f"batches of {effort.batch_size} images of {effort.image_size}x{effort.image_size} on {effort.device}; "
        f"{effort.threads} decoding threads, {effort.workers} DataLoader workers; "
        f"medians of {effort.repetitions} rounds of {effort.batches} batches each, seed {effort.seed}"
    )


def format_opening(rows: Sequence[OpeningRow]) -> str:
    """The same for opening."""
    table = [("opening", "records", "files", "seconds", "peak MiB", "held MiB")]
    table += [
        (
            row.method,
            f"{row.records:,}",
            str(row.files),
            f"{row.seconds:.2f}",
            f"{row.peak_bytes / MIB:,.0f}",
            f"{row.held_bytes / MIB:,.0f}",
        )
        for row in rows
    ]
    return "\n".join(_aligned(table))


def write_csv(path: Path, throughput: Sequence[ThroughputRow], opening: Sequence[OpeningRow]) -> None:
    """All figures, one row a line; ``measurement`` tells the two kinds apart; empty where a row has no such figure."""
    lines = [{"measurement": "throughput"} | asdict(row) for row in throughput]
    lines += [{"measurement": "opening"} | asdict(row) for row in opening]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names or ["measurement"])
    writer.writeheader()
    writer.writerows(lines)
    write_file(path, text.getvalue())


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
