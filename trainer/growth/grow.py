"""Growing: the old run's backbone and centers into a fresh run, centers of new identities from their images."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from data_pipeline import RecordReader
from data_pipeline.identity_names import IdentityNames
from trainer.agreement import any_rank, first_rank_decides
from trainer.backbones.pretrained import load_weights
from trainer.checkpoint import Trained
from trainer.checkpoint.trained import load_optimizer_state
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.growth.grown import Grown
from trainer.growth.matching import Matching, match
from trainer.growth.mean_embeddings import ImageEmbedder
from trainer.growth.new_centers import angles_of_kept, place_new_centers
from trainer.growth.old_centers import take_centers
from trainer.growth.old_run import OldRun, find_checkpoint, old_names
from trainer.growth.together import each_rank
from trainer.stopping import StopRequest
from trainer.world import World

SAMPLE = 1024  # identities that stay, of which one image each is embedded to see whether the names mean the same people
LINE_EVERY_SECONDS = 15.0


class GrowthStoppedError(Exception):
    """The run was asked to stop while it was growing; nothing is written, the same command starts over."""


def grow(
    config: Config,
    trained: Trained,
    reader: RecordReader,
    *,
    network: Callable[[], nn.Module],
    names: Callable[[], IdentityNames | None],
    world: World,
    stop: StopRequest,
    say: Callable[[str], None],
) -> Grown:
    """Fill ``trained``, freshly built, as ``config.growth`` says; nothing is written.

    network: the backbone with its present weights, whole on this rank, asked of all ranks. names: of the data set's
    identities, asked of rank 0 alone. All ranks call it, any number of them.
    Raises ConfigError on all ranks where the old run is damaged or does not fit; GrowthStoppedError.
    """
    assert config.growth is not None, "asked to grow"
    growth = config.growth
    keep_momentum = growth.momentum == "keep"
    folder, description = first_rank_decides(world, lambda: find_checkpoint(config))
    old = each_rank(world, lambda: OldRun.open(folder, description), "growth")
    matching = _matching(config, old, trained, reader, names, world)
    say(
        f"growing from {folder}: {matching.kept:,} identities stay, {matching.new:,} are new, {matching.left:,} leave; "
        f"{len(matching.sample_images) + len(matching.images):,} images to embed"
    )
    _take_backbone(old, trained, world, keep_momentum=keep_momentum)
    moved = take_centers(old, matching, trained, world, keep_momentum=keep_momentum)
    embedder = ImageEmbedder(
        network(),
        reader,
        config.data,
        embedding_dim=trained.head.embedding_dim,
        batch_size=growth.batch_size,
        world=world,
        between=_pause(world, stop, say, total=len(matching.images)),
    )
    own_angle, other_angle = angles_of_kept(embedder, matching, trained, world)
    length, unusable = place_new_centers(embedder, matching, trained, moved, world)
    return Grown(
        folder=folder,
        step=description.step,
        kept=matching.kept,
        new=matching.new,
        left=matching.left,
        vacant=matching.vacant,
        unusable=unusable,
        length=length,
        own_angle=own_angle,
        other_angle=other_angle,
    )


def _matching(
    config: Config,
    old: OldRun,
    trained: Trained,
    reader: RecordReader,
    names: Callable[[], IdentityNames | None],
    world: World,
) -> Matching:
    assert config.growth is not None
    by_mean = config.growth.new_centers == "mean_embedding"
    per_identity = config.growth.images_per_identity if by_mean else 0
    found = [Matching.empty()]

    def on_first() -> None:
        found[0] = match(
            old_names(config, old.folder, old.description),
            names(),
            num_old=old.description.num_classes,
            num_new=trained.head.num_classes,
            identities=reader.identities,
            images_per_identity=per_identity,
            sample=SAMPLE,
        )

    first_rank_decides(world, on_first)
    return found[0].share(world)


def _take_backbone(old: OldRun, trained: Trained, world: World, *, keep_momentum: bool) -> None:
    shared = old.description.shared
    saved = {"backbone": shared["backbone"]} | ({"optimizer": shared["optimizer"]} if keep_momentum else {})
    state = old.read(saved, world=world)
    if keep_momentum:
        _check_same_optimizer(old, trained.backbone_optimizer, state["optimizer"])
    if trained.partitioned is not None:
        trained.partitioned.load(state["backbone"], state.get("optimizer", {}))
        return
    load_weights(trained.backbone, state["backbone"], source=old.folder)
    if keep_momentum:
        load_optimizer_state(trained.backbone, trained.backbone_optimizer, state["optimizer"])


def _check_same_optimizer(old: OldRun, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    kept = {key for of_parameter in state.values() for key in of_parameter}
    expected = "momentum_buffer" if isinstance(optimizer, torch.optim.SGD) else "exp_avg"
    if kept and expected not in kept:
        raise ConfigError(
            f"growth.momentum = 'keep': the backbone's optimizer in {old.folder} was another one, with "
            f"{', '.join(sorted(kept))}: set growth.momentum = 'empty'"
        )


def _pause(world: World, stop: StopRequest, say: Callable[[str], None], *, total: int) -> Callable[[int], None]:
    """Between windows of images: tell at times how far it is, and stop if any rank was asked to."""
    last = time.monotonic()

    def pause(done: int) -> None:
        nonlocal last
        if any_rank(world, stop.asked):
            raise GrowthStoppedError(
                "stopped on request while growing, nothing is written yet: run the same command again to start over"
            )
        if time.monotonic() - last >= LINE_EVERY_SECONDS:
            last = time.monotonic()
            say(f"growing: {done:,} of {total:,} images of new identities embedded")

    return pause
