"""What is said of a job as a whole: figures that are the same on every rank, and sums over ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.top import wording
from trainer.top.ranks import Rank, State
from trainer.top.sparkline import sparkline


@dataclass(frozen=True)
class Job:
    """The ranks of one run, in their order."""

    name: str | None
    ranks: Sequence[Rank]

    def title(self) -> str:
        """Which run, on what, how many of its ranks in which state."""
        states = [rank.state for rank in self.ranks]
        counted = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
        facts = self._speaker.history.last.facts("pfc_run_info") if self._speaker and self._speaker.history else {}
        known = {
            "backbone": "{}",
            "num_classes": "{} classes",
            "num_images": "{} images",
            "world_size": "{} ranks",
            "device": "on {}",
        }
        told = [form.format(facts[key]) for key, form in known.items() if key in facts]
        return "  ".join([self.name or "run", f"[{counted}]", *told])

    def figures(self) -> list[str]:
        """Each a few words; a terminal breaks its lines between them."""
        rank = self._speaker
        if rank is None or rank.history is None:
            return []
        history, reading = rank.history, rank.history.last
        step, target = reading.value("pfc_step"), reading.value("pfc_target_steps")
        loss = wording.short(reading.value("pfc_loss", part="total"))
        trend = sparkline(history.losses) if len(history.losses) > 1 else ""
        own = wording.degrees(reading.value("pfc_angle_radians", pair="positive"))
        others = wording.degrees(reading.value("pfc_angle_radians", pair="negative"))
        return [
            f"step {wording.count(step)}/{wording.count(target)}",
            f"epoch {wording.short(reading.value('pfc_epoch'))}",
            f"ETA {wording.duration(self._eta_seconds(rank))}",
            f"images/s {wording.short(self._images_per_second())}",
            f"loss {loss} {trend}".rstrip(),
            f"angle to own center {own}, others {others}",
            f"active pairs {wording.count(reading.value('pfc_active_pairs'))}",
            f"path {self._path(rank)}",
            f"checkpoint {self._checkpoint(rank)}",
            f"accuracy {self._accuracy()}",
        ]

    def problems(self) -> list[str]:
        """Why endpoints do not answer."""
        return [f"{rank.endpoint}: {rank.problem}" for rank in self.ranks if rank.problem]

    @property
    def _speaker(self) -> Rank | None:
        """The first rank that answers, else the first that ever did, tells what all have alike."""
        answering = [rank for rank in self.ranks if rank.history and not rank.problem]
        return next(iter([*answering, *(rank for rank in self.ranks if rank.history)]), None)

    def _images_per_second(self) -> float | None:
        rates = [rank.history.images_per_second for rank in self.ranks if rank.history and not rank.problem]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    def _eta_seconds(self, rank: Rank) -> float | None:
        assert rank.history is not None
        reading = rank.history.last
        told = reading.value("pfc_eta_seconds")
        if told is not None:
            return told
        step, target = reading.value("pfc_step"), reading.value("pfc_target_steps")
        each = rank.history.step_seconds
        return None if step is None or target is None or each is None else max(0.0, target - step) * each

    def _path(self, rank: Rank) -> str:
        assert rank.history is not None
        shares = rank.history.shares("pfc_head_steps_total", "mode")
        return ", ".join(f"{mode} {share:.0%}" for mode, share in sorted(shares.items()) if share) or wording.ABSENT

    def _checkpoint(self, rank: Rank) -> str:
        assert rank.history is not None
        written = rank.history.last.value("pfc_checkpoint_last_success_timestamp_seconds")
        if written is None:
            return wording.ABSENT
        if written == 0:
            return "none yet"
        step = rank.history.last.value("pfc_last_checkpoint_step")
        return f"{wording.duration(rank.history.last.wall_time - written)} ago (step {wording.count(step)})"

    def _accuracy(self) -> str:
        for rank in self.ranks:
            values = rank.history.last.by("pfc_verification_accuracy_ratio", "pairs") if rank.history else {}
            if values:
                return ", ".join(f"{pairs} {100 * value:.2f}%" for pairs, value in sorted(values.items()))
        return wording.ABSENT


def by_job(ranks: Sequence[Rank]) -> list[Job]:
    """Jobs in the order of their first endpoint; endpoints that never told theirs go with the first job, if any."""
    names = list(dict.fromkeys(rank.job for rank in ranks if rank.history)) or [None]
    jobs = []
    for number, name in enumerate(names):
        mine = [rank for rank in ranks if (rank.job == name if rank.history else number == 0)]
        mine.sort(key=lambda rank: (rank.number is None, rank.number or 0))
        jobs.append(Job(name, mine))
    return jobs
