"""What ``pfc eval`` is asked to judge by: each set is opened and checked before the model is loaded, then evaluated."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipeline import RecordReader
from data_pipeline.errors import DataError
from data_pipeline.image_header import announced_size
from data_pipeline.pairs import read_pairs
from trainer.errors import ConfigError
from trainer.evaluation.distractor_protocol import evaluate_distractors
from trainer.evaluation.distractors import default_sizes
from trainer.evaluation.embed import embed_images
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.extraction import Extractor
from trainer.evaluation.face_sets import FaceSet, open_face_set
from trainer.evaluation.ijb_files import IjbFiles, read_ijb
from trainer.evaluation.ijb_protocol import evaluate_ijb
from trainer.evaluation.image_sources import Decoding, FileImages, ImageSource, LooseCrops, RecordImages
from trainer.evaluation.kept_images import as_pixels, keep_images
from trainer.evaluation.pair_list import PairList, read_pair_list, record_positions
from trainer.evaluation.pair_protocol import Judging, evaluate_bin, judge_list, owners_by_pairs
from trainer.evaluation.protocol_result import ProtocolResult
from trainer.evaluation.untrained import CALIBRATION_BATCHES, calibrate_batch_norm
from trainer.evaluation.verification import VerificationResult
from trainer.world import World


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """The options of the command that say what to judge by and where images are."""

    pairs: tuple[Path, ...] = ()
    ijb: tuple[Path, ...] = ()
    identify: Path | None = None
    distractors: Path | None = None
    counts: tuple[int, ...] | None = None
    images: Path | None = None
    records: Path | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Found:
    """A result; verification: for the table of pair sets, None for other protocols."""

    protocol: ProtocolResult
    verification: VerificationResult | None = None


class EvaluationSet(Protocol):
    """A set that was opened. names: of its results.  title: for the progress line."""

    names: tuple[str, ...]
    title: str

    def keep_in_range(self, module: nn.Module, how: Decoding, batch_size: int) -> None:
        """Calibrate an untrained network on some images of the set."""

    def evaluate(self, module: nn.Module, extractor: Extractor, judging: Judging, world: World) -> list[Found]:
        """A collective; results on rank 0, nothing elsewhere."""


def open_sets(options: SetOptions) -> list[EvaluationSet]:
    """All that is asked for, in the order of the options.

    Raises:
        ConfigError, DataError: files that are missing, broken or do not belong together; two sets of one name.
    """
    reader = None if options.records is None else RecordReader(options.records)
    if options.images is not None and not options.images.is_dir():
        raise ConfigError(f"--images {options.images}: no such folder")
    sets: list[EvaluationSet] = [
        _BinSet(path) if path.suffix.lower() == ".bin" else _ListSet(path, options.images, reader)
        for path in options.pairs
    ]
    sets += [_IjbSet(folder, options.images, reader) for folder in options.ijb]
    if options.identify is not None and options.distractors is not None:
        sets.append(_DistractorSet(options.identify, options.distractors, options.counts, options.seed))
    names = Counter(name for each in sets for name in each.names)
    name, times = names.most_common(1)[0]
    if times > 1:
        raise ConfigError(f"--pairs, --ijb, --identify: two sets share the name '{name}'; rename one")
    return sets


class _BinSet:
    def __init__(self, path: Path) -> None:
        self._pairs = read_pairs(path)
        for number, image in enumerate(self._pairs.jpegs):
            size = announced_size(image)
            if size is not None and size[0] != size[1]:
                raise DataError(
                    f"{path}: image {number} (pair {number // 2}) is {size[1]}x{size[0]} pixels: aligned crops are "
                    "square; align and crop the faces first"
                )
        self.names: tuple[str, ...] = (path.stem,)
        self.title = f"{path.stem}: {len(self._pairs)} pairs"

    def keep_in_range(self, module: nn.Module, how: Decoding, batch_size: int) -> None:
        encoded = self._pairs.jpegs[: CALIBRATION_BATCHES * max(batch_size, 2)]
        keep_in_range(module, keep_images(encoded, how, name=self.names[0]), batch_size, how.device)

    def evaluate(self, module: nn.Module, extractor: Extractor, judging: Judging, world: World) -> list[Found]:
        evaluator = Evaluator(self.names[0], self._pairs, extractor.how, extractor.batch_size)
        return _found(evaluate_bin(evaluator, module, judging, world))


class _ListSet:
    def __init__(self, path: Path, images: Path | None, reader: RecordReader | None) -> None:
        self._pairs: PairList = read_pair_list(path)
        self._source: ImageSource
        if reader is None:
            self._source = FileImages(images or path.parent, self._pairs.images)
            self._positions = np.arange(len(self._pairs.images))
        else:
            self._source = RecordImages(reader)
            self._positions = record_positions(path, self._pairs, len(reader))
        self.names: tuple[str, ...] = (path.stem,)
        self.title = f"{path.stem}: {len(self._pairs.same)} pairs of {len(self._positions)} images"

    def keep_in_range(self, module: nn.Module, how: Decoding, batch_size: int) -> None:
        calibrate_on(module, self._source, self._positions, how, batch_size)

    def evaluate(self, module: nn.Module, extractor: Extractor, judging: Judging, world: World) -> list[Found]:
        pairs = self._pairs
        rows = extractor.rows(self._source, self._positions, self.names[0])
        scores = rows.score_pairs(pairs.first, pairs.second)
        owners = owners_by_pairs(pairs.first, pairs.second, pairs.same, len(pairs.images))
        return _found(judge_list(self.names[0], scores, pairs.same, owners, judging, world))


class _IjbSet:
    def __init__(self, folder: Path, images: Path | None, reader: RecordReader | None) -> None:
        self._files: IjbFiles = read_ijb(folder)
        files = self._files
        self._source: ImageSource
        if reader is not None:
            if len(reader) != len(files.names):
                raise DataError(
                    f"{folder}: {files.name} lists {len(files.names)} images, the records hold {len(reader)}: "
                    "image i must be the one of line i"
                )
            self._source = RecordImages(reader)
        elif images is not None:
            self._source = FileImages(images, files.names)
        else:
            self._source = LooseCrops(folder / "loose_crop", files.names, files.landmarks)
        self.names = tuple(
            f"{files.name}_{kind}" for kind, there in (("1_1", files.pairs), ("1_n", files.probes)) if there is not None
        )
        self.title = f"{files.name}: {len(files.names)} images of {len(files.templates)} templates"

    def keep_in_range(self, module: nn.Module, how: Decoding, batch_size: int) -> None:
        calibrate_on(module, self._source, np.arange(len(self._files.names)), how, batch_size)

    def evaluate(self, module: nn.Module, extractor: Extractor, judging: Judging, world: World) -> list[Found]:
        return [
            Found(result)
            for result in evaluate_ijb(self._files, self._source, extractor, judging, world, extractor.how.device)
        ]


class _DistractorSet:
    def __init__(self, probes: Path, distractors: Path, counts: tuple[int, ...] | None, seed: int) -> None:
        self._probes: FaceSet = open_face_set(probes)
        self._distractors: FaceSet = open_face_set(distractors)
        there = len(self._distractors.source)
        self._counts = default_sizes(there) if counts is None else counts
        if min(self._counts) < 1 or max(self._counts) > there:
            raise ConfigError(f"--distractor-counts {max(self._counts)}: {distractors} holds {there} images")
        self._seed = seed
        name = probes.stem if probes.is_file() else probes.absolute().name
        self.names: tuple[str, ...] = (name,)
        self.title = f"{name}: {len(self._probes.source)} probes, {max(self._counts)} distractors"

    def keep_in_range(self, module: nn.Module, how: Decoding, batch_size: int) -> None:
        calibrate_on(module, self._probes.source, np.arange(len(self._probes.source)), how, batch_size)

    def evaluate(self, module: nn.Module, extractor: Extractor, judging: Judging, world: World) -> list[Found]:
        result = evaluate_distractors(
            self.names[0], self._probes, self._distractors, self._counts, extractor, judging, world,
            extractor.how.device, seed=self._seed,
        )  # fmt: skip
        return [] if result is None else [Found(result)]


def _found(result: tuple[VerificationResult, ProtocolResult] | None) -> list[Found]:
    return [] if result is None else [Found(result[1], result[0])]


def calibrate_on(
    module: nn.Module, source: ImageSource, positions: NDArray[np.int64], how: Decoding, batch_size: int
) -> None:
    """``keep_in_range`` on the first images of a source."""
    some = positions[: CALIBRATION_BATCHES * max(batch_size, 2)]
    source.check(some)
    batches = [some[low : low + batch_size] for low in range(0, len(some), batch_size)]
    images = torch.cat([as_pixels(batch) for batch in source.batches(batches, how)])
    keep_in_range(module, images, batch_size, how.device)


def keep_in_range(module: nn.Module, images: Tensor, batch_size: int, device: torch.device) -> None:
    """Calibrate the untrained network if its embeddings overflow; leave it as built otherwise.

    As built is the harder floor: MobileFaceNet's reached 66% on LFW's development pairs, 60% calibrated.
    """
    if not embed_images(module, images[:batch_size], batch_size=batch_size, device=device).isfinite().all():
        calibrate_batch_norm(module, images, batch_size=batch_size, device=device)
        print("activations overflow as built: batch norm set to the statistics of the images", file=sys.stderr)
