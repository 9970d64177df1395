"""Joining the other ranks under the eyes of the watchdog, and leaving them."""

from collections.abc import Iterator
from contextlib import contextmanager

from trainer.bulletin import Bulletin
from trainer.failure_config import FailureConfig
from trainer.pulse import JOINING, LEAVING, Pulse
from trainer.stopping import StopRequest
from trainer.watchdog import Watchdog, explained, watched
from trainer.world import World, joined_world, launched_place, meeting_store


@contextmanager
def watched_world(
    device_name: str,
    *,
    expected_size: int | None,
    timeout_seconds: float,
    limits: FailureConfig,
    pulse: Pulse,
    stop: StopRequest,
    group_alone: bool = False,
) -> Iterator[tuple[World, Watchdog]]:
    """:func:`trainer.world.joined_world`, watched from before the meeting until after the parting.

    Errors leave the block as what they come from: another rank's failure is a PeerFailedError that tells of it. Where
    this process is asked to stop before the ranks have met, all of them end with exit code 75.
    """
    rank, world_size, _ = launched_place()

    def connect() -> Bulletin:
        store = meeting_store(timeout_seconds=limits.join_seconds, may_host=False)
        assert store is not None, "several ranks"
        return Bulletin(store, rank=rank, world_size=world_size)

    watchdog = Watchdog(
        connect if world_size > 1 else None, rank=rank, world_size=world_size, limits=limits, pulse=pulse
    )
    pulse.enter(JOINING)
    with watched(watchdog):
        stop.call_on_first(watchdog.asked_to_stop)
        with joined_world(
            device_name,
            expected_size=expected_size,
            timeout_seconds=timeout_seconds,
            join_seconds=limits.join_seconds,
            group_alone=group_alone,
        ) as world:
            # Told of before this rank leaves: its closed connections would be all that the others hear of it.
            with explained(watchdog):
                yield world, watchdog
            pulse.enter(LEAVING)
