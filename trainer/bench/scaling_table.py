"""The growth of cost as Markdown: what was measured, and slopes beside theory."""

import math
from collections.abc import Sequence

from trainer.bench.scaling_fit import fit_affine
from trainer.bench.scaling_problem import AXES, BATCH, CLASSES, WORLD, LeftOut, ScalingRow
from trainer.bench.scaling_theory import Judged, collective_bytes, judge

MIB = 1 << 20
NAMES = {
    "wall": "step, wall clock",
    "compute": "computing, CPU time of a rank",
    "memory": "memory of a rank",
    "bytes_moved": "bytes handed to collectives by a rank",
    "active_pairs": "pairs scored of one sample",
}
GROWS_WITH = {CLASSES: "classes", BATCH: "global batch", WORLD: "ranks, global batch kept"}
HEADINGS = (
    "classes", "D", "global batch", "ranks x threads", "step s (quartiles)", "computing s, CPU",
    "in collectives s, wall", "the same alone s", "moved KiB", "by theory KiB", "memory MiB", "active/sample", "mode",
)  # fmt: skip


def format_scaling(rows: Sequence[ScalingRow], left_out: Sequence[LeftOut] = ()) -> str:
    """A table for each axis that was measured, one of slopes, and what was left out."""
    if not rows:
        return "\n".join(["nothing was measured", *map(str, left_out)])
    parts = [_conditions(rows)]
    for axis in AXES:
        mine = [row for row in rows if row.point.axis == axis]
        if mine:
            lines = [f"**Over {GROWS_WITH[axis]}**", "", _line(HEADINGS), _rule(HEADINGS)]
            parts.append("\n".join([*lines, *(_line(_cells(row)) for row in mine)]))
    headings = ("grows with", "figure", "from", "to", "points", "exponent", "theory", "verdict")
    slopes = [_line(_slope_cells(each)) for each in judge(rows)]
    parts.append(
        "\n".join(["**Slopes on logarithms (± standard error)**", "", _line(headings), _rule(headings), *slopes])
    )
    parts.append("\n".join([*_fixed_costs(rows), *map(str, left_out)]))
    return "\n\n".join(part for part in parts if part)


def exponent_text(judged: Judged) -> str:
    """ "0.98 ± 0.01" """
    if judged.fit is None:
        return "-"
    error = "" if math.isnan(judged.fit.error) else f" ± {judged.fit.error:.2f}"
    return f"{judged.fit.slope:.2f}{error}"


def _conditions(rows: Sequence[ScalingRow]) -> str:
    effort = rows[0].effort
    timed, before = (
        f"{min(counts)}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        for counts in ([row.effort.repetitions for row in rows], [row.effort.warmup for row in rows])
    )
    return (
        f"SFace over all classes, tolerance {effort.tolerance:g}, negatives spread {effort.spread:g}: forward, "
        f"backward and update; medians of {timed} steps after {before}, of the slowest rank"
    )


def _cells(row: ScalingRow) -> tuple[str, ...]:
    point = row.point
    several = point.world_size > 1
    theory = collective_bytes(point.batch, point.embedding_dim) if several else 0
    return (
        f"{point.num_classes:,}",
        str(point.embedding_dim),
        f"{point.global_batch:,}",
        f"{point.world_size} x {point.threads}",
        f"{row.wall:.3f} ({row.wall_q1:.3f}-{row.wall_q3:.3f})",
        f"{row.compute:.3f}",
        f"{row.waited:.3f}" if several else "-",
        f"{row.bare_exchange:.4f}" if several else "-",
        f"{row.bytes_moved / 1024:,.0f}" if several else "-",
        f"{theory / 1024:,.0f}" if several else "-",
        f"{row.memory / MIB:,.0f}",
        f"{row.active_pairs:,.1f}",
        row.mode,
    )


def _slope_cells(judged: Judged) -> tuple[str, ...]:
    law = judged.law
    theory = f"{'at most ' if law.at_most else ''}{law.exponent:.3g}"
    points = "0" if judged.fit is None else str(judged.fit.points)
    ends = f"{judged.first:,}", f"{judged.last:,}"
    return GROWS_WITH[law.axis], NAMES[law.figure], *ends, points, exponent_text(judged), theory, judged.verdict


def _fixed_costs(rows: Sequence[ScalingRow]) -> list[str]:
    """Of a step, and per class, over all classes measured."""
    mine = [row for row in rows if row.point.axis == CLASSES]
    found = []
    for figure, unit, each_unit, scale in (("wall", "ms", "ns", 1e3), ("memory", "MiB", "bytes", 1 / MIB)):
        fit = fit_affine([row.point.num_classes for row in mine], [float(getattr(row, figure)) for row in mine])
        if fit is not None:
            each = fit.each * (1e9 if figure == "wall" else 1)
            found.append(
                f"{NAMES[figure]}: {fit.fixed * scale:.1f} {unit} and {each:.1f} {each_unit} a class "
                f"(misses by {100 * fit.spread:.0f}%, root mean square)"
            )
    return found


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(cells: Sequence[str]) -> str:
    return "|" + " --- |" * len(cells)
