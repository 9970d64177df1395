"""From a trained run to a folder of suspicions: embed, survey, suspect, write.

DIR/  report.html  cleaning.json  relabel.tsv
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from data_pipeline.pending_file import write_file
from trainer.agreement import first_rank_decides
from trainer.cleaning.draft_folder import DraftFolder
from trainer.cleaning.embedding_pass import create_file, embed_into, open_file
from trainer.cleaning.page import by_identity, cleaning_page
from trainer.cleaning.relabelling import relabel_lines
from trainer.cleaning.source import Source, open_source
from trainer.cleaning.survey import Survey, survey
from trainer.cleaning.suspicion import Suspicions, suspect
from trainer.each_rank import each_rank
from trainer.world import World


def clean(
    run: Path,
    output: Path,
    *,
    which: str | None,
    records: Path | None,
    batch_size: int,
    strictness: float,
    move: bool = False,
    world: World,
) -> str | None:
    """Write ``output``, which must not exist; all ranks call it and must see the same disk. Returns, on the first
    rank, a line about what was found.

    Everything is made in a hidden folder beside ``output`` and renamed at the end. Raises ConfigError or DataError.
    """
    draft = DraftFolder(output)
    first_rank_decides(world, draft.begin)
    try:
        source = each_rank(
            world, lambda: open_source(run, which=which, records=records, device=world.device), "opening the run"
        )
        with source.reader:
            identities = source.reader.identities
            # Sorted by identity: whoever owns an image is known by where its embedding lies.
            order = np.argsort(identities, kind="stable")
            order = order[identities[order] >= 0]  # -1: a bad record
            embeddings = draft.folder / "embeddings.npy"
            first_rank_decides(world, lambda: create_file(embeddings, len(order), source.centers.shape[1]))

            def embed() -> None:
                embed_into(
                    embeddings, order, source.reader, source.backbone, source.config.data, batch_size=batch_size,
                    world=world,
                )  # fmt: skip

            each_rank(world, embed, "embedding the images")
            if world.world_size > 1:
                dist.barrier()
            line: list[str] = []

            def judge() -> None:
                rows = open_file(embeddings)
                found = survey(rows, order, identities[order], source.centers, device=world.device)
                suspicions = suspect(found, strictness=strictness)
                _write(draft.folder, found, suspicions, source, len(order), move=move)
                del rows
                embeddings.unlink()
                draft.publish()
                line.append(_summary(found, suspicions, output))

            first_rank_decides(world, judge)
    finally:
        draft.end()
    return line[0] if line else None


def _write(draft: Path, found: Survey, suspicions: Suspicions, source: Source, images: int, *, move: bool) -> None:
    facts = {
        "checkpoint": str(source.folder.absolute()),
        "records": ", ".join(map(str, source.records)),
        "identities": f"{len(found.identities):,} with images, of {len(source.centers):,}",
        "images": f"{len(found.positions):,}" + _unusable(images - len(found.positions)),
    }
    records = ", ".join(path.name for path in source.records)
    lines = relabel_lines(found, suspicions, num_classes=len(source.centers), records=records, move=move)
    write_file(draft / "relabel.tsv", "\n".join(lines) + "\n")
    numbers = cleaning_numbers(found, suspicions, source)
    write_file(draft / "cleaning.json", json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    page = cleaning_page(found, suspicions, source.reader, title=source.config.run.output.name, facts=facts)
    write_file(draft / "report.html", page.encode("utf-8", errors="replace"))


def _unusable(count: int) -> str:
    return f" ({count:,} more cannot be used)" if count else ""


def _summary(found: Survey, suspicions: Suspicions, output: Path) -> str:
    noisy = len(by_identity(found, suspicions.wrong))
    return (
        f"{len(suspicions.merged):,} identities look merged, {len(suspicions.split):,} pairs look like one person, "
        f"{len(suspicions.wrong):,} images of {noisy:,} identities look wrong: {output / 'report.html'}; "
        f"pfc data reshard INPUT --output DIR --relabel-file {output / 'relabel.tsv'}"
    )


def cleaning_numbers(found: Survey, suspicions: Suspicions, source: Source) -> dict[str, Any]:
    """The content of cleaning.json. Angles in degrees; null where there is none (an identity of one image)."""
    identity = found.identities.tolist()
    return {
        "step": source.step,
        "thresholds": {
            name: {("ratio" if name == "split" else "degrees"): _of(name, each.value), "reason": each.reason}
            for name, each in suspicions.thresholds.items()
        },
        "merged": [
            {"identity": identity[one.number], "score": one.score, "images": one.images.tolist(),
             "separation": _number(one.as_far_as)}
            for one in suspicions.merged
        ],
        "split": [
            {"keep": identity[pair.keep], "other": identity[pair.other], "score": pair.score,
             "angle": _number(pair.angle)}
            for pair in suspicions.split
        ],
        "noisy": [
            {"identity": identity[number], "images": [_wrong(found, each.place, each.moves) for each in images]}
            for number, images in by_identity(found, suspicions.wrong).items()
        ],
        "identities": [
            {"identity": identity[number], "images": int(found.counts[number]),
             "spread": _number(found.spread[number]), "mean_to_center": _number(found.mean_to_center[number]),
             "nearest": identity[found.neighbour[number]] if found.neighbour[number] >= 0 else None,
             "nearest_angle": _number(found.neighbour_angle[number]),
             "likeness": _of("split", float(found.likeness[number])),
             "separation": _number(found.separation[number])}
            for number in range(len(identity))
        ],
    }  # fmt: skip


def _wrong(found: Survey, place: int, moves: bool) -> dict[str, Any]:
    return {
        "image": int(found.positions[place]),
        "to_own_mean": _number(found.own[place]),
        "to_own_center": _number(found.own_center[place]),
        "nearest": int(found.identities[found.nearest[place]]),
        "to_nearest_mean": _number(found.nearest_angle[place]),
        "to_nearest_center": _number(found.nearest_center[place]),
        "moves": moves,
    }


def _of(name: str, threshold: float) -> float | None:
    return (round(threshold, 3) if np.isfinite(threshold) else None) if name == "split" else _number(threshold)


def _number(angle: float) -> float | None:
    return round(float(np.degrees(angle)), 3) if np.isfinite(angle) else None
