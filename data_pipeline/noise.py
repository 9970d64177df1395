"""Label noise for robustness experiments: a share of the images gets a wrong identity, the truth is written beside.

Closed set: the image stays, its identity becomes another one of the data set. Open set: the identity stays, the image
becomes one of a person outside of it. With one seed, the images of a smaller share are among those of a larger one,
and are changed alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline.draft import NOISE, Draft, refuse_overlap
from data_pipeline.errors import DataError
from data_pipeline.identity_names import IDENTITY_NAMES
from data_pipeline.pending_file import PendingFile
from data_pipeline.properties import FILE_NAME, Properties, write_properties
from data_pipeline.reader import RecordReader
from data_pipeline.record_inputs import RecordInputs
from data_pipeline.record_set import find_records
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedWriter

HEADER = "index\tkind\told\tnew\tdistractor\n"
_PLACES_STREAM, _LABELS_STREAM, _DISTRACTORS_STREAM = 3, 4, 5


@dataclass(frozen=True, eq=False, slots=True)
class Noise:
    """Ascending positions ``closed`` [k] with their new identities ``wrong`` [k], and ``opened`` [m] with the
    position of the image in the distractors that takes the place, ``distractor`` [m].
    """

    closed: NDArray[np.int64]
    wrong: NDArray[np.int64]
    opened: NDArray[np.int64]
    distractor: NDArray[np.int64]


def draw_noise(
    identities: NDArray[np.int64], *, closed_set: float, open_set: float, num_distractors: int = 0, seed: int = 0
) -> Noise:
    """Noise for images with ``identities`` [n]: round(share x n) of each kind, of disjoint images.

    A wrong identity is drawn uniformly from the others that have images; no distractor is used twice.

    Raises:
        DataError: shares that are no shares, a single identity, or too few distractors.
    """
    if not (0 <= closed_set <= 1 and 0 <= open_set <= 1 and closed_set + open_set <= 1) or not 0 <= seed < 1 << 63:
        raise DataError(
            f"closed-set noise {closed_set}, open-set noise {open_set}, seed {seed}: give shares from 0 to 1 of "
            "together at most 1, and a seed from 0 to 2**63 - 1"
        )
    count = len(identities)
    num_closed = round(closed_set * count)
    num_open = min(round(open_set * count), count - num_closed)
    present, own = np.unique(identities, return_inverse=True)
    if num_closed and len(present) < 2:
        raise DataError("closed-set noise needs another identity: the data set has only one")
    if num_open > num_distractors:
        raise DataError(
            f"{num_open} images of other identities are needed for open-set noise but there are {num_distractors}: "
            "give a larger data set as distractors"
        )
    places = np.random.default_rng([seed, _PLACES_STREAM]).permutation(count)
    closed = np.sort(places[:num_closed])
    # Every image has its wrong identity, whether its turn comes or not: that is what makes larger shares include
    # smaller ones.
    steps = np.random.default_rng([seed, _LABELS_STREAM]).integers(1, max(len(present), 2), size=count)
    wrong = present[(own[closed] + steps[closed]) % len(present)]
    others = np.random.default_rng([seed, _DISTRACTORS_STREAM]).permutation(num_distractors)[:num_open]
    opened = places[count - num_open :][::-1]
    order = np.argsort(opened)
    return Noise(closed, wrong, opened[order], others[order])


def write_noisy(
    source: Path,
    output: Path,
    *,
    closed_set: float = 0.0,
    open_set: float = 0.0,
    distractors: Path | None = None,
    seed: int = 0,
    cut: ShardCut | None = None,
    plain: bool = False,
    overwrite: bool = False,
) -> Noise:
    """Write the data set ``source`` into ``output`` with noise, in the same order, and the truth into noise.tsv.

    noise.tsv: a line for each changed image, ascending: index, kind (closed or open), old identity, new identity,
    and for open-set noise the position in ``distractors`` of the image that is there now.

    Raises:
        DataError: unusable inputs or shares, no distractors for open-set noise, or an output that exists (unless
            ``overwrite``).
    """
    if open_set > 0 and distractors is None:
        raise DataError("open-set noise needs images of other identities: name a data set of them with --distractors")
    inputs = [source] if distractors is None else [source, distractors]
    refuse_overlap(output, inputs)
    with RecordInputs([source]) as clean, Draft(output, overwrite=overwrite) as draft:
        other = None if distractors is None else RecordReader(find_records(distractors))
        noise = draw_noise(
            clean.identities, closed_set=closed_set, open_set=open_set,
            num_distractors=0 if other is None else len(other), seed=seed,
        )  # fmt: skip
        new = clean.identities.copy()
        new[noise.closed] = noise.wrong
        replaced = zip(noise.opened, noise.distractor, strict=True)
        place, instead = next(replaced, (-1, -1))
        with (
            ShardedWriter(draft.folder, cut=cut, total=len(clean), plain=plain) as writer,
            tqdm(total=len(clean), unit="image", desc="adding noise", disable=None) as progress,
        ):
            for position in range(len(clean)):
                if position == place and other is not None:
                    jpeg = other[int(instead)].jpeg
                    place, instead = next(replaced, (-1, -1))
                else:
                    jpeg = clean.jpeg(position)
                writer.write(int(new[position]), jpeg)
                progress.update()
        names = writer.names() | {NOISE: NOISE}
        with PendingFile(draft.folder / NOISE) as table:
            table.stream.write(HEADER.encode())
            table.stream.writelines(line.encode() for line in _table(clean.identities, noise))
        if (size := clean.image_size()) is not None:
            write_properties(draft.folder, Properties(clean.num_identities, *size))
            names[FILE_NAME] = FILE_NAME
        if clean.names is not None:
            clean.names.write(draft.folder / IDENTITY_NAMES)
            names[IDENTITY_NAMES] = IDENTITY_NAMES
        draft.publish(names)
    return noise


def _table(identities: NDArray[np.int64], noise: Noise) -> Iterator[str]:
    kinds = np.repeat([0, 1], [len(noise.closed), len(noise.opened)])
    positions = np.concatenate([noise.closed, noise.opened])
    values = np.concatenate([noise.wrong, noise.distractor])
    for place in np.argsort(positions).tolist():
        position, value = int(positions[place]), int(values[place])
        old = int(identities[position])
        if kinds[place]:
            yield f"{position}\topen\t{old}\t{old}\t{value}\n"
        else:
            yield f"{position}\tclosed\t{old}\t{value}\t\n"
