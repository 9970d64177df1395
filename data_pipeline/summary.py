"""What a data set holds, in numbers and in words."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import BadRecordError
from data_pipeline.image_header import announced_size, image_format
from data_pipeline.reader import RecordReader
from data_pipeline.record_set import find_records

__all__ = ["Summary", "describe", "find_records", "histogram", "summarize"]

_BAR = 40  # characters of the longest bar
_SHOWN_PATHS, _SHOWN_SIZES = 8, 6


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts over all images; sizes, formats, labels and bytes over a sample of them.

    range_records: header and range records beside the images. per_identity: images per identity, of those that have
    any, ascending. order: how the identities lie in the files. sizes: (height, width) -> images of the sample, None
    for what has no readable header; formats: the same by format. jpeg_bytes: bytes of each image of the sample.
    """

    paths: list[Path]
    file_bytes: int
    layout: str
    range_records: int
    num_identities: int
    num_images: int
    per_identity: list[int]
    order: str
    sizes: dict[tuple[int, int] | None, int]
    formats: dict[str | None, int]
    labels: dict[str, int]
    jpeg_bytes: list[int]
    warnings: list[str]


def summarize(reader: RecordReader, sample: int = 1000) -> Summary:
    """Look at every image's identity and at the headers of ``sample`` evenly spaced images."""
    identities = reader.identities
    counts = np.unique(identities, return_counts=True)[1]
    positions = np.unique(np.linspace(0, len(reader) - 1, min(sample, len(reader))).astype(np.int64)).tolist()
    jpegs: list[bytes] = []
    labels: Counter[str] = Counter()
    for position in positions:
        try:
            jpegs.append(reader[position].jpeg)
            labels[reader.label_kind(position)] += 1
        except BadRecordError:
            continue
    sizes = Counter(announced_size(jpeg) for jpeg in jpegs)
    formats = Counter(image_format(jpeg) for jpeg in jpegs)
    properties = reader.properties
    warnings = []
    if identities.max() >= reader.num_identities:
        warnings.append(
            f"property says {reader.num_identities} identities but the largest identity is {identities.max()}"
        )
    elif len(counts) < reader.num_identities:
        warnings.append(f"{reader.num_identities - len(counts)} of {reader.num_identities} identities have no image")
    if np.any(counts == 1):
        warnings.append(f"{int((counts == 1).sum())} identities have a single image")
    if len(sizes) > 1:
        warnings.append("images have different sizes: the loader resizes them at every step, pack them once instead")
    elif properties and (size := next(iter(sizes), None)) not in (None, (properties.height, properties.width)):
        warnings.append(f"property says {properties.height}x{properties.width}, the images are {size}")
    if None in formats:
        warnings.append(f"{formats[None]} of {len(positions)} images looked at are no JPEG, PNG, WebP or BMP")
    if len(jpegs) < len(positions):
        warnings.append(f"{len(positions) - len(jpegs)} of {len(positions)} records looked at cannot be read")
    return Summary(
        paths=reader.paths,
        file_bytes=sum(path.stat().st_size for path in reader.paths),
        layout=" and ".join(sorted({shard.layout for shard in reader.shards})),
        range_records=sum(shard.num_range_records + (shard.layout == "insightface") for shard in reader.shards),
        num_identities=reader.num_identities,
        num_images=len(reader),
        per_identity=np.sort(counts).tolist(),
        order=_order(identities, counts),
        sizes=dict(sizes.most_common()),
        formats=dict(formats.most_common()),
        labels=dict(labels.most_common()),
        jpeg_bytes=[len(jpeg) for jpeg in jpegs],
        warnings=warnings,
    )


def _order(identities: NDArray[np.int64], counts: NDArray[np.int64]) -> str:
    """How the images of an identity lie: together or apart."""
    steps = np.diff(identities)
    runs = 1 + int(np.count_nonzero(steps))
    if len(counts) == len(identities):
        return "one image per identity"
    if not np.any(steps < 0):
        return "sorted by identity"
    if runs == len(counts):
        return "grouped by identity"
    # Of n images in random order a share of sum c(c-1) / n(n-1) of neighbours are of one identity.
    images = len(identities)
    expected = images - float(np.sum(counts * (counts - 1.0))) / images
    return "shuffled" if runs >= 0.9 * expected else f"partly grouped ({runs:,} runs of one identity)"


def describe(summary: Summary) -> str:
    """The summary as lines of text."""
    counts, each = np.array(summary.per_identity), np.array(summary.jpeg_bytes or [0])
    looked_at = len(summary.jpeg_bytes)
    layout = {"insightface": "InsightFace (header and range records)", "plain": "plain (every record an image)"}
    sizes = {f"{size[0]}x{size[1]}" if size else "no JPEG": count for size, count in summary.sizes.items()}
    formats = {name or "unknown": count for name, count in summary.formats.items()}
    others = f", {summary.range_records:,} header and range records" if summary.range_records else ""
    sample = f" (sample of {looked_at:,})" if looked_at < summary.num_images else ""
    lines = [
        *(f"{'records':20}{path}" for path in summary.paths[:_SHOWN_PATHS]),
        *([f"{'':20}... and {len(summary.paths) - _SHOWN_PATHS:,} more"] if len(summary.paths) > _SHOWN_PATHS else []),
        f"{'shards':20}{len(summary.paths):,}, {summary.file_bytes:,} bytes",
        f"{'layout':20}{layout.get(summary.layout, summary.layout)}",
        f"{'identities':20}{summary.num_identities:,}",
        f"{'images':20}{summary.num_images:,}{others}",
        f"{'images per identity':20}min {counts.min():,}, median {np.median(counts):,.0f}, mean {counts.mean():,.1f}, "
        f"max {counts.max():,}",
        *histogram(summary.per_identity),
        f"{'order':20}{summary.order}",
        f"{'labels':20}{_shares(summary.labels)}{sample}",
        f"{'format':20}{_shares(formats)}{sample}",
        f"{'image size':20}{_shares(sizes)}{sample}",
        f"{'image bytes':20}mean {each.mean():,.0f}, max {each.max():,}{sample}",
        *(f"{'warning':20}{warning}" for warning in summary.warnings),
    ]
    return "\n".join(lines)


def _shares(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    shown = list(counts.items())[:_SHOWN_SIZES]
    more = f" and {len(counts) - _SHOWN_SIZES} more" if len(counts) > _SHOWN_SIZES else ""
    return ", ".join(f"{name} ({count / total:.1%})" for name, count in shown) + more or "none could be read"


def histogram(per_identity: list[int]) -> list[str]:
    """Identities by number of images, in classes that double in width: one line with a bar for each."""
    classes = Counter(count.bit_length() - 1 for count in per_identity)
    longest = max(classes.values())
    lines = []
    for power in range(min(classes), max(classes) + 1):
        low, high = 1 << power, (2 << power) - 1
        label = f"{low:,}" if low == high else f"{low:,}-{high:,}"
        bar = "#" * -(-classes[power] * _BAR // longest)
        lines.append(f"{label:>18}  {classes[power]:>9,} {bar}".rstrip())
    return lines
