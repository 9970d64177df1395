"""A journey as a Markdown table and as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.bench.journey_problem import Journey, Stretch

GIB = 1 << 30
MEMORY = "each rank: largest resident size (VmHWM); together: largest sum of proportional sizes (PSS) of all processes"


def format_journey(journey: Journey) -> str:
    """Two columns, and lines that say what was done and how memory was measured."""
    effort, drawn = journey.effort, journey.drawn
    before, after, restart, learned = journey.before, journey.after, journey.restart, journey.learned
    drawing = f"{drawn.seconds:.0f} s, {drawn.images / drawn.seconds:,.0f} images/s" if drawn.seconds else "was there"
    rows = [
        ("data set drawn", f"{drawing}; {drawn.nbytes / GIB:.2f} GiB on disk; {_gib(drawn.peak_together)} together"),
        (f"start on {_ranks(before)}", _start(before)),
        (f"training on {_ranks(before)}", _speed(before)),
        ("of a step there", _parts(before)),
        ("memory there", _memory(before)),
        (
            "checkpoint",
            f"{restart.checkpoint_bytes / GIB:.2f} GiB, written beside the training in {before.write_seconds:.1f} s, "
            f"which stalled it for {before.stall_seconds:.2f} s",
        ),
        (
            "all ranks killed (SIGKILL)",
            f"after step {restart.killed_at}; launcher ended after {restart.ended:.1f} s; continued at step "
            f"{restart.continued_at}; first new step {restart.to_next_step:.1f} s after the kill",
        ),
        (f"start on {_ranks(after)}", _start(after)),
        (f"training on {_ranks(after)}", _speed(after)),
        ("of a step there", _parts(after)),
        ("memory there", _memory(after)),
        (
            "evaluation",
            f"{effort.pairs:,} pairs of {effort.unseen_identities:,} unseen identities, "
            f"{journey.evaluation.seconds:.0f} s; {_gib(journey.evaluation.peak_together)}",
        ),
        (
            "accuracy",
            f"{100 * learned.accuracy:.2f}% ± {100 * learned.accuracy_std:.2f} (10 folds), "
            f"untrained {100 * learned.untrained:.2f}% ± {100 * learned.untrained_std:.2f}",
        ),
        (
            "first and last tenth of the steps",
            f"mean angle to the own center {math.degrees(learned.angle_first):.1f}°, "
            f"{math.degrees(learned.angle_last):.1f}°; loss {learned.loss_first:.2f}, {learned.loss_last:.2f}",
        ),
        ("report", f"{journey.report.seconds:.0f} s; {_gib(journey.report.peak_together)}"),
        ("run folder at the end", f"{journey.run_bytes / GIB:.2f} GiB"),
        ("most memory at any time", f"{_gib(journey.peak_together)} together"),
        ("all of it", f"{journey.seconds / 60:.1f} min"),
    ]
    title = (
        f"{effort.identities:,} identities, {drawn.images:,} images, {journey.backbone}, D={journey.embedding_dim}, "
        f"global batch {journey.global_batch}, {after.last_step} steps, {effort.cores} cores"
    )
    lines = [title, MEMORY, "", "| what | measured |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {what} | {measured} |" for what, measured in rows)])


def write_journey(path: Path, journey: Journey) -> None:
    """All figures, in seconds and bytes."""
    write_file(path, json.dumps(asdict(journey) | {"peak_together": journey.peak_together}, indent=2) + "\n")


def _ranks(stretch: Stretch) -> str:
    return f"{stretch.ranks} {'rank' if stretch.ranks == 1 else 'ranks'}"


def _start(stretch: Stretch) -> str:
    return (
        f"{stretch.start_seconds:.1f} s from the command; data opened {stretch.opening:.1f}, built "
        f"{stretch.building:.1f}, checkpoint loaded {stretch.loading:.1f}"
    )


def _speed(stretch: Stretch) -> str:
    return (
        f"steps {stretch.first_step} to {stretch.last_step}: {stretch.images_per_second:,.0f} images/s, "
        f"{stretch.step_seconds:.2f} s a step (median)"
    )


def _parts(stretch: Stretch) -> str:
    return ", ".join(f"{part} {seconds:.3f} s" for part, seconds in stretch.parts.items())


def _memory(stretch: Stretch) -> str:
    return f"{_each(stretch.peak_resident)} each rank, {_gib(stretch.peak_together)} together"


def _each(sizes: Sequence[int]) -> str:
    return " and ".join(f"{size / GIB:.2f}" for size in sizes) + " GiB"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
