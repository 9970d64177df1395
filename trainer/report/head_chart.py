"""Chart of what the head did: active pairs, the path of each step, its cut and its estimated error.

N: logged steps.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from trainer.report.drawing import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Picture,
    legend,
    log_axis,
    new_figure,
    plot,
    step_axis,
    to_source,
)
from trainer.report.metrics_log import Column, MetricsLog
from trainer.report.thinning import thin, thin_stack
from trainer.report.training_charts import span

_WIDE_RANGE = 50.0  # largest over smallest value from which a linear axis hides the small ones


def head_chart(log: MetricsLog, *, tolerance: float | None) -> Picture | None:
    """One panel for each of the four that the log has figures for; None without any.

    A head that only knows the dense path has neither cut nor error: their panels are left out.
    """
    step = log["step"]
    per_sample = log["active_pairs"] / np.where(log["global_batch"] > 0, log["global_batch"], np.nan)
    cut, error = _positive(log["cut"]), _positive(log["error"])
    panels: list[Callable[[Axes], None]] = []
    if np.isfinite(per_sample).any():
        panels.append(lambda axes: _draw_pairs(axes, step, per_sample))
    if np.isfinite(log["screened"]).sum() > 1:
        panels.append(lambda axes: _draw_path(axes, step, log["screened"]))
    if np.isfinite(cut).any():
        panels.append(lambda axes: _draw_cut(axes, step, cut))
    if np.isfinite(error).any():
        panels.append(lambda axes: _draw_error(axes, step, error, tolerance))
    if not panels:
        return None
    figure, all_axes = new_figure(0.6 + 1.45 * max(2, len(panels)), panels=len(panels))
    for draw, axes in zip(panels, all_axes, strict=True):
        draw(axes)
    step_axis(all_axes[-1])
    known = log["screened"][np.isfinite(log["screened"])]
    path = f"{known.mean() * 100:.1f}% of logged steps screened, the rest dense" if known.size else "not logged"
    return Picture(
        title="Head: active pairs, path, cut and error",
        source=to_source(figure),
        alt=f"Charts over steps. Active pairs per sample {span(per_sample)}; path: {path}; cut {span(cut)}; "
        f"estimated relative error {span(error)}.",
        caption=f"Path: {path}.",
    )


def _positive(column: Column) -> Column:
    """[N] without zeros: a dense step has no cut and no error to show on a logarithmic axis."""
    return np.where(column > 0, column, np.nan)


def _draw_pairs(axes: Axes, step: Column, per_sample: Column) -> None:
    plot(axes, thin(step, per_sample), "active pairs", BLUE)
    axes.set_ylabel("active pairs\nper sample")
    low, high = np.nanmin(per_sample), np.nanmax(per_sample)
    if low > 0 and high > _WIDE_RANGE * low:
        log_axis(axes.yaxis)
    elif high > 0:
        axes.set_ylim(bottom=0)


def _draw_path(axes: Axes, step: Column, screened: Column) -> None:
    x, layers = thin_stack(step, [screened * 100, (1 - screened) * 100])
    axes.stackplot(x, layers, labels=("screened", "dense"), colors=(SKY, ORANGE), linewidth=0)
    axes.set_ylabel("steps (%)")
    axes.set_ylim(0, 100)
    legend(axes)


def _draw_cut(axes: Axes, step: Column, cut: Column) -> None:
    plot(axes, thin(step, cut), "cut", GREEN)
    axes.set_ylabel("cut\n(coefficient)")
    log_axis(axes.yaxis)


def _draw_error(axes: Axes, step: Column, error: Column, tolerance: float | None) -> None:
    plot(axes, thin(step, error), "estimated error", PURPLE)
    axes.set_ylabel("relative error\n(estimated)")
    if tolerance is not None and tolerance > 0:
        axes.axhline(tolerance, color=RED, linewidth=1.2, linestyle=":", label=f"tolerance {tolerance:g}")
    log_axis(axes.yaxis)
    legend(axes)
