"""A rank's row: its state, and each figure in words."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from trainer.top import wording
from trainer.top.endpoints import Endpoint
from trainer.top.history import History
from trainer.top.reading import Reading


class State(StrEnum):
    """Of a rank, as its endpoint shows it."""

    UP = "up"
    STARTING = "starting"  # answers, but has taken no step yet
    UNHEALTHY = "unhealthy"  # answers, and says itself that no step has come for too long
    GONE = "gone"  # does not answer, or not as a rank does


@dataclass(frozen=True)
class Rank:
    """history: None of an endpoint that has never answered. problem: why it does not answer now; empty: it does."""

    endpoint: Endpoint
    history: History | None
    problem: str = ""

    @property
    def state(self) -> State:
        """By the newest answer alone."""
        if self.problem or self.history is None:
            return State.GONE
        reading = self.history.last
        if reading.value("pfc_healthy") == 0:
            return State.UNHEALTHY
        return State.UP if reading.value("pfc_step_seconds_count") else State.STARTING

    @property
    def job(self) -> str | None:
        """The run's name, where the rank has ever told one."""
        return self.history.last.job if self.history else None

    @property
    def number(self) -> int | None:
        """Its rank in the job."""
        return self.history.last.rank if self.history else None


@dataclass(frozen=True)
class Column:
    """One figure of all ranks. priority: the higher, the sooner it is left out of a narrow table."""

    title: str
    priority: int
    cell: Callable[[Rank], str]
    left: bool = False


def _live(figure: Callable[[History], str]) -> Callable[[Rank], str]:
    """Of ranks that are gone, old figures would pass for new ones."""

    def cell(rank: Rank) -> str:
        return wording.ABSENT if rank.history is None or rank.problem else figure(rank.history)

    return cell


def _step(rank: Rank) -> str:
    if rank.history is None:
        return wording.ABSENT
    reading = rank.history.last
    return f"{wording.count(reading.value('pfc_step'))}/{wording.count(reading.value('pfc_target_steps'))}"


def _memory(history: History) -> str:
    reading = history.last
    device = reading.value("pfc_memory_bytes", kind="device")
    if device:
        return wording.size(device)
    host = reading.value("pfc_memory_bytes", kind="host")
    return wording.size(reading.value("process_resident_memory_bytes") if host is None else host)


def _queue(reading: Reading) -> str:
    filled = reading.value("pfc_data_queue_batches")
    room = reading.value("pfc_data_queue_capacity_batches")
    return wording.ABSENT if filled is None else wording.count(filled) + (f"/{wording.count(room)}" if room else "")


def _phase(name: str) -> Callable[[Rank], str]:
    return _live(lambda history: wording.percent(history.shares("pfc_step_phase_seconds_sum", "phase").get(name)))


COLUMNS = (
    Column("rank", 0, lambda rank: wording.ABSENT if rank.number is None else str(rank.number)),
    Column("state", 0, lambda rank: str(rank.state), left=True),
    Column("step", 1, _step),
    Column("images/s", 1, _live(lambda history: wording.short(history.images_per_second))),
    Column("step time", 2, _live(lambda history: wording.seconds(history.step_seconds))),
    Column("data wait", 3, _live(lambda history: wording.percent(history.last.value("pfc_data_wait_ratio")))),
    Column("memory", 4, _live(_memory)),
    Column("skipped", 5, _live(lambda history: wording.count(history.last.total("pfc_data_skipped_records_total")))),
    Column("queue", 6, _live(lambda history: _queue(history.last))),
    Column("data", 7, _phase("data")),
    Column("fwd", 7, _phase("forward")),
    Column("head", 7, _phase("head")),
    Column("bwd", 7, _phase("backward")),
    Column("opt", 8, _phase("optimizer")),
    Column("other", 8, _phase("other")),
    Column("endpoint", 9, lambda rank: str(rank.endpoint), left=True),
)
