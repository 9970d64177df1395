"""Records to train on while a step is measured: few photographs, as many identities as wanted."""

from pathlib import Path

import numpy as np

from data_pipeline import RecordWriter

PHOTOGRAPHS = 128  # each takes some 20 ms to draw
COPIES = 8  # of each, under other identities


def write_records(path: Path, *, num_identities: int, image_size: int, seed: int) -> int:
    """Write faces of ``image_size`` pixels whose identities are uniform over all; returns the number of images.

    A class's row is touched as often as in training on so many identities; what the images show changes nothing in
    what a step costs.
    """
    from data_pipeline.synthetic import synthetic_photo  # slow to import

    jpegs = [synthetic_photo(seed, number, 0, image_size) for number in range(PHOTOGRAPHS)]
    identities = np.random.default_rng(seed).integers(num_identities, size=(COPIES, PHOTOGRAPHS))
    with RecordWriter(path) as writer:
        for row in identities.tolist():
            for identity, jpeg in zip(row, jpegs, strict=True):
                writer.write(identity, jpeg)
    return PHOTOGRAPHS * COPIES
