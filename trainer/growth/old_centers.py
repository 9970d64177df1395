"""Rows of the old run's centers and of their momentum, each to the rank and the place that it has now."""

from partial_fc.moved_centers import MovedCenters
from trainer.checkpoint import Trained
from trainer.checkpoint.trained import CENTER_MOMENTUM, CENTERS
from trainer.growth.matching import NEW, Matching
from trainer.growth.old_run import OldRun
from trainer.growth.row_exchange import Renumbering, exchange_rows
from trainer.growth.row_files import ClassRows, MotionRows, RowFiles
from trainer.world import World


def take_centers(
    old: OldRun, matching: Matching, trained: Trained, world: World, *, keep_momentum: bool
) -> MovedCenters:
    """Fill the rows of identities that stay; the others start as in any new run, for ``set_new`` to change.

    All ranks call it. Raises ConfigError on all of them for a checkpoint that is damaged or does not fit.
    """
    shard, dim = trained.head.class_shard, trained.head.embedding_dim
    renumbering = Renumbering.inverse(matching.source, matching.num_old)
    motion = None
    if old.motions:
        motion = {"now": old.motions[0]["now"], "shared": old.read(old.motions[0]["shared"], world=world)}
    moved = MovedCenters(trained.head, trained.center_optimizer, motion=motion, keep_momentum=keep_momentum)
    for classes, rows in exchange_rows(ClassRows(old.reader, CENTERS, embedding_dim=dim), renumbering, world):
        moved.put_centers(classes - shard.start, rows[CENTERS])
    files: RowFiles
    if old.motions:
        # Also where momentum is not kept: rows in motion are saved where they were last touched.
        files = MotionRows(old.reader, old.motions, embedding_dim=dim)
        for classes, rows in exchange_rows(files, renumbering, world):
            moved.put_motion(classes - shard.start, rows)
    elif keep_momentum and CENTER_MOMENTUM in old.reader.metadata.state_dict_metadata:
        files = ClassRows(old.reader, CENTER_MOMENTUM, embedding_dim=dim)
        for classes, rows in exchange_rows(files, renumbering, world):
            moved.put_momentum(classes - shard.start, rows[CENTER_MOMENTUM])
    moved.settle((matching.source[shard.start : shard.stop] == NEW).nonzero().squeeze(1))
    return moved
