"""Growing: the old run's backbone and centers into a fresh run, centers of new identities from their images."""

import time
from collections.abc import Callable

import torch
from torch import nn

from data_pipeline import RecordReader
from data_pipeline.identity_names import IdentityNames
from trainer.agreement import any_rank, first_rank_decides
from trainer.checkpoint import Trained
from trainer.config import Config
from trainer.each_rank import each_rank
from trainer.growth.grown import Grown
from trainer.growth.matching import Matching, match
from trainer.growth.mean_embeddings import ImageEmbedder
from trainer.growth.new_centers import angles_of_kept, place_new_centers
from trainer.growth.old_backbone import OldBackbone
from trainer.growth.old_centers import take_centers
from trainer.growth.old_run import OldRun, find_checkpoint, old_names
from trainer.stopping import StopRequest
from trainer.world import World

SAMPLE = 1024  # identities that stay, of which one image each is embedded to see whether the names mean the same people
LINE_EVERY_SECONDS = 15.0


class GrowthStoppedError(Exception):
    """The run was asked to stop while it was growing; nothing is written, the same command starts over."""


class Growth:
    """Growing from one old run, in two parts: what it has is read and held against a backbone that no engine has taken
    apart yet, and only then is anything built on it.
    """

    def __init__(self, config: Config, old: OldRun, backbone: OldBackbone, world: World) -> None:
        assert config.growth is not None, "asked to grow"
        self._config = config
        self._chosen = config.growth
        self._old = old
        self._backbone: OldBackbone | None = backbone
        self._world = world

    @classmethod
    def open(cls, config: Config, world: World) -> "Growth":
        """Find and read the old run, on every rank. Raises ConfigError on all of them where it is damaged."""
        assert config.growth is not None, "asked to grow"
        folder, description = first_rank_decides(world, lambda: find_checkpoint(config))
        old = each_rank(world, lambda: OldRun.open(folder, description), "growth")
        backbone = OldBackbone.read(old, world, keep_momentum=config.growth.momentum == "keep")
        return cls(config, old, backbone, world)

    def check(self, backbone: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Raises ConfigError where the old run's backbone is not one like ``backbone``, which is whole here, or its
        momentum does not fit ``optimizer``.
        """
        assert self._backbone is not None, "before it is put in place"
        self._backbone.check(backbone, optimizer)

    def carry_out(
        self,
        trained: Trained,
        reader: RecordReader,
        *,
        network: Callable[[], nn.Module],
        names: Callable[[], IdentityNames | None],
        stop: StopRequest,
        say: Callable[[str], None],
    ) -> Grown:
        """Fill ``trained``, freshly built, as ``config.growth`` says; nothing is written. Once only.

        network: the backbone with its present weights, whole on this rank, asked of all ranks. names: of the data set's
        identities, asked of rank 0 alone. All ranks call it, any number of them.
        Raises ConfigError on all ranks where the old run is damaged or does not fit; GrowthStoppedError.
        """
        old, chosen, world = self._old, self._chosen, self._world
        matching = _matching(self._config, old, trained, reader, names, world)
        say(
            f"growing from {old.folder}: {matching.kept:,} identities stay, {matching.new:,} are new, "
            f"{matching.left:,} leave; {len(matching.sample_images) + len(matching.images):,} images to embed"
        )
        assert self._backbone is not None, "growing happens once"
        self._backbone.put_into(trained)
        self._backbone = None  # as large as the network
        moved = take_centers(old, matching, trained, world, keep_momentum=chosen.momentum == "keep")
        embedder = ImageEmbedder(
            network(),
            reader,
            self._config.data,
            embedding_dim=trained.head.embedding_dim,
            batch_size=chosen.batch_size,
            world=world,
            between=_pause(world, stop, say, total=len(matching.images)),
        )
        own_angle, other_angle = angles_of_kept(embedder, matching, trained, world)
        length, unusable = place_new_centers(embedder, matching, trained, moved, world)
        return Grown(
            folder=old.folder,
            step=old.description.step,
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
