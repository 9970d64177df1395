"""Rewrites data sets: other record shards, another order, other identities. Image bytes are copied as they are.

The shuffle is a keyed permutation of all images, read one by one where they lie: uniform, and of no memory, but on
a spinning disk every image costs a seek. Memory: some 120 bytes per image, for indexes, identities and positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline.draft import PAIRS, RELABELLED, Draft, refuse_overlap
from data_pipeline.errors import DataError
from data_pipeline.hold_out import HeldOut, hold_out
from data_pipeline.identity_names import IDENTITY_NAMES, IdentityNames, join_names
from data_pipeline.merged_identities import IdentitySpaces
from data_pipeline.order import images_at
from data_pipeline.pairs import write_pairs
from data_pipeline.pending_file import write_file
from data_pipeline.properties import FILE_NAME, Properties, write_properties
from data_pipeline.record_inputs import RecordInputs
from data_pipeline.relabel import DROP, read_relabel
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedWriter

_CHUNK = 1 << 16  # positions computed together


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshardOptions:
    """What changes, applied in this order.

    spaces: identities of several inputs are kept apart, taken as the same, or told by name. relabel_file: see
    ``relabel``. min_images: identities with fewer leave. hold_out, pairs: so many identities leave, and become pairs.
    relabel: number the identities that are left 0, 1, 2, ... shuffle (by seed), or sort by identity. cut, plain:
    of the records written.
    """

    spaces: IdentitySpaces = "separate"
    relabel_file: Path | None = None
    min_images: int = 1
    hold_out: int = 0
    pairs: int = 6000
    relabel: bool = False
    shuffle: bool = False
    sort: bool = False
    seed: int = 0
    cut: ShardCut = field(default_factory=ShardCut)
    plain: bool = False

    def __post_init__(self) -> None:
        if self.shuffle and self.sort:
            raise DataError("shuffled and sorted by identity: choose one")
        if self.min_images < 1 or not 0 <= self.seed < 1 << 63:
            raise DataError(f"at least {self.min_images} images, seed {self.seed}: give 1 or more, and 0 to 2**63 - 1")


@dataclass(frozen=True, slots=True)
class Resharded:
    """What was written: record files, identities that have images, images; identities and images left out."""

    records: list[Path]
    identities: int
    images: int
    dropped_images: int
    held_out: int


def reshard(inputs: Sequence[Path], output: Path, options: ReshardOptions, *, overwrite: bool = False) -> Resharded:
    """Write the data sets ``inputs`` (record files or folders) into ``output`` as one, changed as ``options`` say.

    Beside the records: property; identities.tsv where an input has names or numbers changed; relabel.tsv, a relabel
    file that gives every identity's new number, where numbers changed or identities left; verification.bin, pairs of
    those held out.

    Raises:
        DataError: unusable inputs or options, nothing left, or an output that exists (unless ``overwrite``).
    """
    refuse_overlap(output, inputs)
    extra = (PAIRS,) if options.hold_out else ()
    with RecordInputs(inputs, options.spaces) as source, Draft(output, overwrite=overwrite, extra=extra) as draft:
        plan = _plan(source, options)
        names = {FILE_NAME: FILE_NAME}
        if plan.held_out is not None:
            write_pairs(
                draft.folder / PAIRS, [source.jpeg(each) for each in plan.held_out.positions.tolist()],
                plan.held_out.same,
            )  # fmt: skip
            names[PAIRS] = PAIRS
        with (
            ShardedWriter(draft.folder, cut=options.cut, total=len(plan.kept), plain=options.plain) as writer,
            tqdm(total=len(plan.kept), unit="image", desc="resharding", disable=None) as progress,
        ):
            for position in _positions(plan, options):
                writer.write(int(plan.new[position]), source.jpeg(position))
                progress.update()
        names |= writer.names()
        size = source.image_size()
        if size is None:
            del names[FILE_NAME]
        else:
            write_properties(draft.folder, Properties(plan.num_identities, *size))
        rows = _rows(plan)
        if source.names is not None or np.any(plan.old[plan.kept] != plan.new[plan.kept]):
            _names(source, plan, rows, output).write(draft.folder / IDENTITY_NAMES)
            names[IDENTITY_NAMES] = IDENTITY_NAMES
        if np.any(plan.old != plan.new):
            _write_mapping(draft.folder / RELABELLED, source, plan, rows)
            names[RELABELLED] = RELABELLED
        draft.publish(names)
    return Resharded(
        sorted(output / name for name in names.values() if name.endswith(".rec")),
        len(np.unique(plan.new[plan.kept])), len(plan.kept), len(plan.new) - len(plan.kept),
        0 if plan.held_out is None else len(plan.held_out.identities),
    )  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class _Plan:
    """Identities of all images: in the input ``old``, after the relabel file ``asked``, in the output ``new`` (or
    DROP); positions ``single`` that the relabel file names; positions ``kept``, in input order.
    """

    old: NDArray[np.int64]
    asked: NDArray[np.int64]
    new: NDArray[np.int64]
    single: NDArray[np.int64]
    kept: NDArray[np.int64]
    held_out: HeldOut | None
    num_identities: int


def _plan(source: RecordInputs, options: ReshardOptions) -> _Plan:
    asked, single = source.identities, np.empty(0, dtype=np.int64)
    if options.relabel_file is not None:
        relabel = read_relabel(options.relabel_file)
        asked, single = relabel.apply(asked, options.relabel_file), relabel.indices
    new = asked.copy()
    if options.min_images > 1:
        present, inverse, counts = np.unique(new, return_inverse=True, return_counts=True)
        new[(counts < options.min_images)[inverse] & (new >= 0)] = DROP
    held_out = None
    if options.hold_out:
        held_out = hold_out(new, options.hold_out, options.pairs, options.seed)
        new[np.isin(new, held_out.identities)] = DROP
    kept = np.flatnonzero(new >= 0)
    if not len(kept):
        raise DataError(f"no image of {source.paths[0]} is left: ask for fewer images per identity or drop less")
    if options.relabel:
        present, new[kept] = np.unique(new[kept], return_inverse=True)
        num_identities = len(present)
    else:
        num_identities = max(source.num_identities, int(new.max()) + 1)
    return _Plan(source.identities, asked, new, single, kept, held_out, num_identities)


def _positions(plan: _Plan, options: ReshardOptions) -> Iterator[int]:
    """Positions of the images to write, in the order of writing."""
    kept = plan.kept
    if options.sort:
        kept = kept[np.argsort(plan.new[kept], kind="stable")]
    for start in range(0, len(kept), _CHUNK):
        places = np.arange(start, min(start + _CHUNK, len(kept)), dtype=np.int64)
        if options.shuffle:
            places = images_at(places, len(kept), options.seed, 0, "global")
        yield from kept[places].tolist()


def _rows(plan: _Plan) -> NDArray[np.int64]:
    """For each identity of the input, the position of one image that shares its fate, ascending by identity."""
    shared = np.ones(len(plan.old), dtype=bool)
    shared[plan.single] = False
    positions = np.flatnonzero(shared)
    return positions[np.unique(plan.old[positions], return_index=True)[1]]


def _names(source: RecordInputs, plan: _Plan, rows: NDArray[np.int64], output: Path) -> IdentityNames:
    """Names of the identities in the output: that of the identity whose number the relabel file kept goes first.

    Whoever has only images that the relabel file names one by one is somebody new, and goes by the number there.
    """
    names = source.names or IdentityNames.numbers(np.unique(plan.old), str(source.paths[0]))
    rows = rows[plan.new[rows] >= 0]
    rows = rows[np.argsort(plan.old[rows] != plan.asked[rows], kind="stable")]
    ids, first = np.unique(plan.new[rows], return_index=True)
    named = names.select(np.searchsorted(names.ids, plan.old[rows[first]]), ids)
    present, at = np.unique(plan.new[plan.kept], return_index=True)
    others = ~np.isin(present, ids)
    if not others.any():
        return named
    numbers = [b"%d" % number for number in plan.asked[plan.kept[at[others]]].tolist()]
    return join_names([(named, 0), (IdentityNames.of(present[others], numbers, str(output)), 0)], str(output))


def _write_mapping(path: Path, source: RecordInputs, plan: _Plan, rows: NDArray[np.int64]) -> None:
    """What became of every identity, and of the images that a relabel file named, as a relabel file."""
    lines = ["# pfc relabel file: OLD<tab>NEW, of the inputs in this order"]
    lines += [f"# {remark}" for remark in source.remarks]
    held = set() if plan.held_out is None else set(plan.held_out.identities.tolist())

    def fate(position: int) -> str:
        if plan.new[position] >= 0:
            return str(plan.new[position])
        asked = int(plan.asked[position])
        return "drop\t" + ("relabel file" if asked < 0 else "held out" if asked in held else "too few images")

    lines += [f"{plan.old[position]}\t{fate(position)}" for position in rows.tolist()]
    lines += [f"image\t{position}\t{fate(position)}" for position in plan.single.tolist()]
    write_file(path, "\n".join(lines) + "\n")
