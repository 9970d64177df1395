"""What ``pfc data verify`` found, for people and for programs.

The report is one JSON object:

    format      "pfc-verify-report"
    version     1
    shards      [{path, bytes, layout, has_index, records, images, bad}], in the order of the data set
    image_size  the size in pixels that was asked for, or null
    totals      {shards, bytes, records, images, bad, seconds}; records counts headers and ranges too
    counts      {reason: how many}, of the reasons that occurred
    sizes       {"HEIGHTxWIDTH": sound images}
    formats     {"JPEG" | "PNG" | "WebP" | "BMP": sound images}
    bad         [{shard, key, offset, reason, message}], by shard and place; at most LISTED of them
    unlisted    how many more bad ones there are than ``bad`` lists

``key`` is the record's number in the index, null where it has none. ``offset`` counts bytes from the beginning of
the shard, null where the fault has no place in it. ``reason`` is one of REASONS of ``data_pipeline.errors`` or of
INDEX_REASONS.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.pending_file import write_file

LISTED = 10_000
INDEX_REASONS = {
    "unreadable_index": "the index is not lines of a key and an offset",
    "duplicate_key": "the index gives a key to two places",
    "duplicate_offset": "the index gives two keys to one record",
    "no_record": "the index names a place where no record starts",
    "not_in_index": "an image that the index does not name, so that no reader sees it",
    "bad_range": "header or range records that contradict the images",
}


class BadRecord(NamedTuple):
    """One finding; see the report's ``bad``."""

    shard: str
    key: int | None
    offset: int | None
    reason: str
    message: str


@dataclass(slots=True)
class ShardReport:
    """Counts of one file."""

    path: str
    bytes: int
    layout: str = "plain"
    has_index: bool = False
    records: int = 0
    images: int = 0
    bad: int = 0


@dataclass(slots=True)
class VerifyReport:
    """Everything found in a data set. ``bad`` lists LISTED records at most, ``counts`` has them all."""

    image_size: int | None = None
    shards: list[ShardReport] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    bad: list[BadRecord] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def num_bad(self) -> int:
        """Findings, listed or not."""
        return self.counts.total()

    def add(self, found: BadRecord) -> None:
        """Count a finding of the last shard, and list it where there is room."""
        self.count(found.reason, 1)
        if len(self.bad) < LISTED:
            self.bad.append(found)

    def count(self, reason: str, number: int) -> None:
        """Count findings of the last shard that are not listed."""
        self.counts[reason] += number
        self.shards[-1].bad += number

    def as_dict(self) -> dict[str, Any]:
        """The report as this file's docstring describes it."""
        return {
            "format": "pfc-verify-report",
            "version": 1,
            "image_size": self.image_size,
            "totals": {
                "shards": len(self.shards),
                "bytes": sum(each.bytes for each in self.shards),
                "records": sum(each.records for each in self.shards),
                "images": sum(each.images for each in self.shards),
                "bad": self.num_bad,
                "seconds": round(self.seconds, 3),
            },
            "counts": dict(self.counts.most_common()),
            "sizes": {f"{height}x{width}": count for (height, width), count in self.sizes.most_common()},
            "formats": dict(self.formats.most_common()),
            "shards": [{name: getattr(each, name) for name in each.__slots__} for each in self.shards],
            "bad": [each._asdict() for each in self.bad],
            "unlisted": self.num_bad - len(self.bad),
        }

    def write(self, path: Path) -> None:
        """Write the report as JSON to ``path``, whole or not at all."""
        write_file(path, json.dumps(self.as_dict(), indent=1) + "\n")


def describe_report(report: VerifyReport, shown: int = 3) -> str:
    """The report as lines of text, with the first ``shown`` bad records of each reason."""
    totals = report.as_dict()["totals"]
    rate = totals["images"] / report.seconds if report.seconds else 0.0
    sizes = ", ".join(f"{height}x{width} ({count:,})" for (height, width), count in report.sizes.most_common(5))
    formats = ", ".join(f"{name} ({count:,})" for name, count in report.formats.most_common())
    more = f" and {len(report.sizes) - 5} more" if len(report.sizes) > 5 else ""
    lines = [
        f"{'shards':20}{totals['shards']:,}, {totals['bytes']:,} bytes",
        f"{'records':20}{totals['records']:,}",
        f"{'images':20}{totals['images']:,} in {report.seconds:.1f} s ({rate:,.0f} a second)",
        f"{'formats':20}{formats or 'none'}",
        f"{'image sizes':20}{sizes or 'none'}{more}",
        *(f"{'no index':20}{each.path}" for each in report.shards if not each.has_index),
    ]
    for reason, count in report.counts.most_common():
        lines.append(f"{f'bad: {reason}':20}{count:,}")
        examples = [each for each in report.bad if each.reason == reason][:shown]
        lines += [
            f"    {each.shard}: record {_or(each.key)} at byte {_or(each.offset)}: {each.message}" for each in examples
        ]
        if count > len(examples):
            lines.append(f"    ... and {count - len(examples):,} more")
    lines.append(f"{'result':20}" + (f"{report.num_bad:,} bad" if report.num_bad else "all good"))
    return "\n".join(lines)


def _or(number: int | None) -> str:
    return "-" if number is None else str(number)
