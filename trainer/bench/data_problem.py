"""What ``pfc bench data`` measures, and what a measurement says."""

from dataclasses import dataclass

BARE = "dali"  # DALI's own reader, decoder and normalisation: what this loader must cost no more than
BARE_FLIP = "dali-flip"
LOADER = "pfc"  # this loader
LOADER_FLIP = "pfc-flip"
LOADER_CPU = "pfc-cpu-flip"  # this loader with the decoder that needs no DALI
PIL = "pil-flip"  # PIL in a torch DataLoader, as most training scripts have it
METHODS = (BARE, LOADER, BARE_FLIP, LOADER_FLIP, LOADER_CPU, PIL)
FLIPPED = frozenset({BARE_FLIP, LOADER_FLIP, LOADER_CPU, PIL})

OPEN_LOADER = "pfc"
OPEN_DICT = "python-dict"  # the index as mxnet.recordio.MXIndexedRecordIO reads it


@dataclass(frozen=True)
class DataEffort:
    """How to measure. batches: timed in each turn of a method; threads: of decoding; workers: of the DataLoader."""

    batch_size: int
    image_size: int
    device: str
    threads: int
    workers: int
    prefetch: int
    batches: int
    repetitions: int
    seed: int


@dataclass(frozen=True)
class ThroughputRow:
    """One method: images per second and ratios round by round, median and quartiles; None without the other method.

    over_bare: to bare DALI with the same flip. over_pil: to the PIL DataLoader.
    """

    method: str
    images_per_second: float
    images_per_second_q1: float
    images_per_second_q3: float
    over_bare: float | None
    over_bare_q1: float | None
    over_bare_q3: float | None
    over_pil: float | None


@dataclass(frozen=True)
class OpeningRow:
    """Opening ``records`` records in ``files`` files in a process of its own, by one reader.

    seconds: median. peak_bytes: largest growth of resident memory; held_bytes: what is left of it.
    """

    method: str
    records: int
    files: int
    seconds: float
    peak_bytes: int
    held_bytes: int
