"""IJB-B and IJB-C: templates embedded once, verified 1:1 and searched 1:N.

T templates, P probes.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.errors import ConfigError
from trainer.evaluation.extraction import Extractor
from trainer.evaluation.identification_protocol import evaluate_identification
from trainer.evaluation.ijb_files import IjbFiles, TemplatePairs
from trainer.evaluation.image_sources import ImageSource
from trainer.evaluation.pair_protocol import Judging, PairOwners, judge_templates, owners_by_pairs
from trainer.evaluation.protocol_result import ProtocolResult
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.evaluation.template_pooling import TemplateImages, choose_templates
from trainer.world import World


def evaluate_ijb(
    files: IjbFiles, source: ImageSource, extractor: Extractor, judging: Judging, world: World, device: torch.device
) -> list[ProtocolResult]:
    """What the files allow: 1:1, 1:N, or both; results on rank 0, nothing elsewhere. A collective.

    Raises:
        ConfigError: on all ranks, for images that are missing or cannot be used.
    """
    if len(source) < len(files.names):
        raise ConfigError(
            f"{files.name}: {len(files.names)} images are listed, {len(source)} are in the records: record i must be "
            "the image of line i"
        )
    wanted = _asked_for(files)
    templates = choose_templates(files.templates, wanted)
    rows = extractor.templates(source, templates, files.name)
    results = []
    if files.pairs is not None:
        results.append(_verification(files, files.pairs, templates, rows, judging, world))
    if files.probes is not None:
        results.append(
            evaluate_identification(
                f"{files.name}_1_n", files.galleries, files.probes, templates, rows, judging, world, device
            )
        )
    return [result for result in results if result is not None]


def _asked_for(files: IjbFiles) -> NDArray[np.int64]:
    lists = [files.pairs.first, files.pairs.second] if files.pairs is not None else []
    lists += [subjects.templates for subjects in (*files.galleries, files.probes) if subjects is not None]
    return np.unique(np.concatenate(lists))


def _verification(
    files: IjbFiles, pairs: TemplatePairs, templates: TemplateImages, rows: ShardedRows, judging: Judging, world: World
) -> ProtocolResult | None:
    first, second = templates.find(pairs.first), templates.find(pairs.second)
    scores = rows.score_pairs(first, second)
    owners = _owners(files, templates, first, second, pairs.same)
    return judge_templates(f"{files.name}_1_1", scores, pairs.same, owners, len(templates), judging, world)


def _owners(
    files: IjbFiles,
    templates: TemplateImages,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    same: NDArray[np.bool_],
) -> PairOwners:
    """By subject where the files of 1:N name everyone's, else by the same pairs."""
    subject = np.full(len(templates), -1, dtype=np.int64)
    for listed in (*files.galleries, files.probes):
        if listed is not None:
            subject[templates.find(listed.templates)] = listed.subjects
    if (subject[first] < 0).any() or (subject[second] < 0).any():
        return owners_by_pairs(first, second, same, len(templates))
    known = np.unique(subject[np.concatenate((first, second))])
    return PairOwners(np.searchsorted(known, subject[first]), np.searchsorted(known, subject[second]), len(known))
