"""What a data set holds, in numbers and in words."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.image_size import jpeg_size
from data_pipeline.reader import RecordReader

_BAR = 40  # characters of the longest bar


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts over all images, and image sizes and bytes over a sample of them.

    per_identity: images per identity, of those that have any, ascending. sizes: (height, width) -> images of the
    sample, None for what is no JPEG. jpeg_bytes: bytes of each image of the sample.
    """

    paths: list[Path]
    layout: str
    num_identities: int
    num_images: int
    per_identity: list[int]
    sizes: dict[tuple[int, int] | None, int]
    jpeg_bytes: list[int]
    warnings: list[str]


def summarize(reader: RecordReader, sample: int = 1000) -> Summary:
    """Look at every image's identity and at the headers of ``sample`` evenly spaced images."""
    identities = reader.identities
    counts = np.unique(identities, return_counts=True)[1]
    positions = np.unique(np.linspace(0, len(reader) - 1, min(sample, len(reader))).astype(np.int64)).tolist()
    jpegs = [reader[position].jpeg for position in positions]
    sizes = Counter(jpeg_size(jpeg) for jpeg in jpegs)
    layouts = sorted({shard.layout for shard in reader.shards})
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
    elif properties and (size := next(iter(sizes))) not in (None, (properties.height, properties.width)):
        warnings.append(f"property says {properties.height}x{properties.width}, the images are {size}")
    if None in sizes:
        warnings.append(f"{sizes[None]} of {len(jpegs)} images looked at are no JPEG")
    return Summary(
        paths=reader.paths,
        layout=" and ".join(layouts),
        num_identities=reader.num_identities,
        num_images=len(reader),
        per_identity=np.sort(counts).tolist(),
        sizes=dict(sizes.most_common()),
        jpeg_bytes=[len(jpeg) for jpeg in jpegs],
        warnings=warnings,
    )


def describe(summary: Summary) -> str:
    """The summary as lines of text."""
    counts, each = np.array(summary.per_identity), np.array(summary.jpeg_bytes)
    layout = {"insightface": "InsightFace (header and range records)", "plain": "plain (every record an image)"}
    sizes = ", ".join(
        f"{f'{size[0]}x{size[1]}' if size else 'no JPEG'} ({count / len(each):.1%})"
        for size, count in summary.sizes.items()
    )
    lines = [
        *(f"{'records':20}{path}" for path in summary.paths),
        f"{'layout':20}{layout.get(summary.layout, summary.layout)}",
        f"{'identities':20}{summary.num_identities:,}",
        f"{'images':20}{summary.num_images:,}",
        f"{'images per identity':20}min {counts.min():,}, median {np.median(counts):,.0f}, mean {counts.mean():,.1f}, "
        f"max {counts.max():,}",
        *histogram(summary.per_identity),
        f"{'image size':20}{sizes}",
        f"{'JPEG bytes':20}mean {each.mean():,.0f}, max {each.max():,} (sample of {len(each):,})",
        *(f"{'warning':20}{warning}" for warning in summary.warnings),
    ]
    return "\n".join(lines)


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


def find_records(path: Path) -> list[Path]:
    """The ``.rec`` files that ``path`` names: itself, or those in the folder, sorted by name.

    Raises:
        DataError: there is none.
    """
    if path.is_dir():
        found = sorted(path.glob("*.rec"))
        if not found:
            raise DataError(f"{path} holds no .rec file: pack one with pfc data pack FOLDER --output {path}")
        return found
    if not path.exists():
        raise DataError(f"{path} does not exist: give a .rec file or a folder that holds one")
    return [path]
