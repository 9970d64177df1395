"""What a run's own files tell of it: the log of rank 0, metrics.jsonl and the evaluations."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.bench.journey_problem import Stretch
from trainer.bench.phase_command import Phase
from trainer.errors import PeerFailedError
from trainer.phases import PHASES


def stretch(events: Sequence[dict[str, Any]], phase: Phase, *, began: float, pids: Sequence[int]) -> Stretch:
    """Of one start; events: of rank 0's log from its "started" on. began: when the command was given, seconds since
    1970. pids: of the ranks.
    """
    started = events[0]
    steps = [event for event in events if event["event"] == "step"]
    saved = [event for event in events if event["event"] == "checkpoint"]
    usual = steps[1:] or steps
    seconds: dict[str, float] = started["start_seconds"]
    return Stretch(
        ranks=len(pids),
        seconds=phase.seconds,
        start_seconds=started["at"] - began,
        opening=seconds["opening"],
        building=seconds["building"],
        loading=seconds["loading"],
        first_step=steps[0]["step"],
        last_step=steps[-1]["step"],
        step_seconds=statistics.median(step["step_seconds"] for step in usual),
        images_per_second=sum(step["global_batch"] for step in usual) / sum(step["step_seconds"] for step in usual),
        parts={part: statistics.mean(step["phase_seconds"][part] for step in usual) for part in PHASES},
        stall_seconds=statistics.mean([event["stall_seconds"] for event in saved] or [0.0]),
        write_seconds=statistics.mean([event["seconds"] for event in saved] or [0.0]),
        peak_resident=tuple(phase.peak_resident.get(pid, 0) for pid in pids),
        peak_together=phase.peak_together,
    )


def journal(run_folder: Path, total_steps: int) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl, one a step. Raises PeerFailedError where a step is missing or there twice."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line["step"] for line in lines]
    if steps != list(range(1, total_steps + 1)):
        missing = sorted(set(range(1, total_steps + 1)) - set(steps))
        raise PeerFailedError(
            f"{run_folder / 'metrics.jsonl'}: the run was to have each of {total_steps} steps once; "
            f"it has {len(steps)} lines, missing are {missing[:5]}"
        )
    return lines


def tenths(lines: Sequence[dict[str, Any]], key: str) -> tuple[float, float]:
    """Means over the first and the last tenth of the lines."""
    count = max(1, len(lines) // 10)
    return statistics.mean(line[key] for line in lines[:count]), statistics.mean(line[key] for line in lines[-count:])
