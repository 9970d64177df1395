"""Writing checkpoints beside the training: the loop waits for a copy of what changes, the rest happens behind it.

A checkpoint goes through these stages, which all ranks enter together:

copied      each rank copies what it will write into host memory (synchronous, or with no memory to spare: not)
written     each rank's thread checksums its part and writes it into the draft folder
published   rank 0's thread writes the description, renames the folder and deletes what is obsolete

No thread communicates. Ranks learn of each other's progress by two flags, which the training loop adds to the
all-reduce that it makes after every step anyway; so a checkpoint is complete a step or two after its last byte is
written. :meth:`CheckpointSaver.wait` does the same without steps in between.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.storage import WriteResult

from partial_fc import center_state
from trainer.agreement import PeerFailedError, any_rank_each, of_all_ranks, on_first_rank
from trainer.checkpoint.background import Background, Running
from trainer.checkpoint.description import Description, Score
from trainer.checkpoint.draft import Draft
from trainer.checkpoint.errors import CheckpointWriteError, failure_of, write_error
from trainer.checkpoint.parts import Part, PartsSavePlanner
from trainer.checkpoint.retention import Retention
from trainer.checkpoint.snapshot import HostBuffers, Snapshot
from trainer.checkpoint.storage import RawWriter
from trainer.checkpoint.trained import (
    CENTER_MOMENTUM,
    CENTERS,
    SEEN_CLASSES,
    Position,
    Trained,
    own_state,
    shared_state,
)
from trainer.checkpoint.tree import split_tree
from trainer.config import Config
from trainer.world import World

ASK_EVERY_SECONDS = 10.0  # while waiting: no rank waits longer for another in one collective than this
ABANDON_SECONDS = 30.0  # that a failing run grants a write in progress to end


@dataclass(frozen=True)
class Outcome:
    """How a checkpoint ended, alike on all ranks but for what each wrote and how long it took.

    seconds: from the request to the end. stall_seconds: of these, how long training waited for it. nbytes: written by
    this rank. error: None when the checkpoint is complete.
    """

    step: int
    folder: Path
    score: Score | None
    seconds: float
    stall_seconds: float
    nbytes: int
    error: CheckpointWriteError | None = None


@dataclass
class _Pending:
    """A checkpoint on its way. plan, results: what this rank writes, and where it lies. task: what runs now."""

    position: Position
    score: Score | None
    draft: Draft
    writer: RawWriter
    planner: PartsSavePlanner
    plan: SavePlan
    own: dict[str, Any]
    shared: dict[str, Any]
    num_classes: int
    embedding_dim: int
    began: float
    task: Running | None = None
    results: list[WriteResult] = field(default_factory=list)
    is_written: bool = False
    stalled: float = 0.0

    @property
    def nbytes(self) -> int:
        return sum(result.size_in_bytes for result in self.results)


class CheckpointSaver:
    """Saves a run's checkpoints, one at a time; every method but :meth:`abandon` is called by all ranks together.

    asynchronous: False writes while training waits, and takes no memory for copies. start: runs a function behind the
    training. now: seconds, of whatever beginning.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        config: Config,
        world: World,
        retention: Retention,
        asynchronous: bool = True,
        start: Callable[[Callable[[], None]], Running] = Background,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run_folder = run_folder
        self._config = config
        self._world = world
        self._retention = retention
        self._asynchronous = asynchronous
        self._copies = asynchronous
        self._start = start
        self._now = now
        self._buffers = HostBuffers()
        self._reserving: Running | None = None
        self._pending: _Pending | None = None

    @property
    def flags(self) -> tuple[bool, bool]:
        """This rank's (busy, failed), to be or-ed over all ranks for :meth:`advance`."""
        task = None if self._pending is None else self._pending.task
        if task is None:
            return False, False
        busy = task.is_running()
        return busy, not busy and task.error is not None

    @property
    def pending_score(self) -> Score | None:
        """Of the checkpoint that is being written."""
        return None if self._pending is None else self._pending.score

    def copied_parts(self, trained: Trained) -> dict[str, Part]:
        """What this rank copies when it saves."""
        return self._collect(trained, {})[2]

    def reserve(self, parts: dict[str, Part]) -> None:
        """Make room for copies of tensors of these sizes, behind the training, so that no checkpoint waits for it."""
        if self._copies and self._pending is None and self._reserving is None:
            self._reserving = self._start(lambda: self._buffers.reserve(parts))

    def save_memory(self) -> None:
        """From now on this rank makes no copies: training waits until it has written its part."""
        self._copies = False

    def save(
        self, trained: Trained, position: Position, *, score: Score | None = None, finish: bool = False
    ) -> list[Outcome]:
        """Begin the checkpoint of ``position.step``, after the one before has ended; what has ended when it returns.

        finish: return when it is complete, without a copy. Raises what is no matter of the disk.
        """
        ended = self.wait()
        began = self._now()
        own, shared, parts = self._collect(trained, position.metrics)
        copy = self._copies and not finish
        snapshot = self._copied(parts) if copy else Snapshot(parts, lambda: None)
        planner = PartsSavePlanner()
        planner.set_up_planner(snapshot.parts)
        draft = Draft(self._run_folder, position.step)
        pending = _Pending(
            position=position,
            score=score,
            draft=draft,
            writer=RawWriter(draft.folder, f"rank_{self._world.rank:04d}.bin"),
            planner=planner,
            plan=planner.create_local_plan(),
            own=own,
            shared=shared,
            num_classes=trained.head.num_classes,
            embedding_dim=trained.head.embedding_dim,
            began=began,
        )

        def write() -> None:
            snapshot.wait()
            draft.make()
            pending.results = pending.writer.write_data(pending.plan, planner).wait()

        self._pending = pending
        pending.task = self._start(write)
        if not copy:
            pending.task.join()  # what it writes must not change
        pending.stalled += self._now() - began
        return ended + (self.wait() if finish or not self._asynchronous else [])

    def advance(self, *, busy: bool, failed: bool) -> Outcome | None:
        """Take the pending checkpoint one stage on, if no rank is busy with it any more; how it ended, if it did.

        busy, failed: :attr:`flags`, or-ed over all ranks.
        """
        pending = self._pending
        if pending is None or busy:
            return None
        began = self._now()
        try:
            if failed:
                return self._ended(pending, began, self._failure(pending))
            if pending.is_written:
                return self._ended(pending, began)
            pending.is_written = True
            pending.task = None
            contributions = on_first_rank(self._world, (pending.plan, pending.results, pending.own))
            if contributions is not None:
                pending.task = self._start(lambda: self._publish(pending, contributions))
        finally:
            pending.stalled += self._now() - began
        return None

    def wait(self) -> list[Outcome]:
        """Until nothing is pending: how that ended."""
        ended: list[Outcome] = []
        while (pending := self._pending) is not None:
            began = self._now()
            if pending.task is not None:
                pending.task.join(ASK_EVERY_SECONDS)
            busy, failed = any_rank_each(self._world, self.flags)
            pending.stalled += self._now() - began
            outcome = self.advance(busy=busy, failed=failed)
            ended += [] if outcome is None else [outcome]
        return ended

    def abandon(self) -> None:
        """Leave without the other ranks, which may be gone: give up what is being written, end what is being published.

        What cannot be removed now is when the run starts again.
        """
        pending, self._pending = self._pending, None
        if pending is None or pending.task is None:
            return
        if not pending.is_written:
            pending.writer.cancel()
        pending.task.join(ABANDON_SECONDS)
        if not pending.is_written:
            pending.draft.discard_file(pending.writer.file)

    def _collect(
        self, trained: Trained, metrics: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Part]]:
        """This rank's own tree, the shared one, and the tensors that this rank writes."""
        state = own_state(trained, self._world) | {"metrics": metrics}
        own, parts = split_tree(state, f"rank_{self._world.rank:04d}")
        shared, shared_tensors = split_tree(shared_state(trained), "shared")
        return own, shared, _parts(trained, parts, shared_tensors if self._world.is_first else {})

    def _copied(self, parts: dict[str, Part]) -> Snapshot:
        if self._reserving is not None:
            self._reserving.join()
            self._reserving = None
        return self._buffers.copy(parts)

    def _publish(self, pending: _Pending, contributions: list[Any]) -> None:
        """On rank 0: describe what all ranks have written, and give it its name."""
        plans, results, own = zip(*contributions, strict=True)
        _, metadata = pending.planner.create_global_plan(list(plans))
        pending.writer.finish(metadata, list(results))
        pending.draft.expect(pending.writer.index)
        Description(
            step=pending.position.step,
            samples=pending.position.samples,
            loader=pending.position.loader,
            written=time.time(),
            score=pending.score,
            world_size=self._world.world_size,
            num_classes=pending.num_classes,
            embedding_dim=pending.embedding_dim,
            config=self._config.to_dict(),
            shared=pending.shared,
            ranks=list(own),
            tensors=pending.writer.index,
        ).write(pending.draft.folder)
        pending.draft.publish()
        with suppress(OSError):  # it is complete, whatever becomes of older ones
            self._retention.apply(self._run_folder, now=pending.position.step)

    def _ended(self, pending: _Pending, began: float, error: CheckpointWriteError | None = None) -> Outcome:
        self._pending = None
        now = self._now()
        return Outcome(
            step=pending.position.step,
            folder=pending.draft.final,
            score=pending.score,
            seconds=now - pending.began,
            stall_seconds=pending.stalled + now - began,
            nbytes=pending.nbytes,
            error=error,
        )

    def _failure(self, pending: _Pending) -> CheckpointWriteError:
        """What went wrong on whichever rank. Raises what is no matter of the disk."""
        self._pending = None
        error = None if pending.task is None else pending.task.error
        own = failure_of(error, str(pending.draft.folder)) if isinstance(error, OSError) else None
        found = of_all_ranks(self._world, (own, error is not None))
        if self._world.is_first:
            pending.draft.discard()
        if error is not None and own is None:
            raise error
        failures = [failure for failure, _ in found if failure is not None]
        if len(failures) < sum(failed for _, failed in found):
            raise PeerFailedError("checkpoint: another rank failed; see its log")
        return write_error(failures)


def _parts(trained: Trained, *whole: dict[str, Any]) -> dict[str, Part]:
    head = trained.head
    rows = {
        CENTERS: head.stored_centers.detach(),
        CENTER_MOMENTUM: center_state(head, trained.center_optimizer)["momentum"],
        SEEN_CLASSES: head.seen.state(),
    }
    parts = {
        name: Part(tensor, head.class_shard.start, head.num_classes)
        for name, tensor in rows.items()
        if tensor is not None
    }
    return parts | {name: Part(tensor) for tensors in whole for name, tensor in tensors.items()}
