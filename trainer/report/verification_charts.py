"""Charts of verification: accuracy over steps, ROC, and the scores of same and different pairs.

P: pairs of a verification set.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.store import StoredResult
from trainer.report.drawing import (
    BLUE,
    DASHES,
    GREY,
    RED,
    SERIES,
    Picture,
    label,
    legend,
    log_axis,
    new_figure,
    step_axis,
    to_source,
)
from trainer.report.thinning import spread_evenly

_BINS = 60


def accuracy_chart(history: Mapping[str, Sequence[StoredResult]]) -> Picture | None:
    """Accuracy over steps, one line per set, with the standard deviation over the folds as a band."""
    if not history:
        return None
    figure, (axes,) = new_figure()
    said = []
    for number, (name, results) in enumerate(history.items()):
        kept = [results[position] for position in spread_evenly(len(results))]
        steps = np.array([result.step for result in kept], dtype=np.float64)
        mean = np.array([result.accuracy_mean for result in kept]) * 100
        deviation = np.array([result.accuracy_std for result in kept]) * 100
        color, dashes = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
        marker = "o" if steps.size < 40 else ""
        axes.fill_between(steps, mean - deviation, mean + deviation, color=color, alpha=0.14, linewidth=0)
        axes.plot(steps, mean, dashes, color=color, marker=marker, markersize=4, label=label(name))
        said.append(f"{name} {mean[0]:.2f}% at step {steps[0]:.0f}, {mean[-1]:.2f}% at step {steps[-1]:.0f}")
    axes.set_ylabel("10-fold accuracy (%)")
    step_axis(axes)
    legend(axes)
    return Picture(
        title="Verification accuracy",
        source=to_source(figure),
        alt="Line chart of accuracy over steps: " + "; ".join(said) + ".",
        caption="Mean over the folds; the band is one standard deviation. Guessing gives 50%.",
    )


def roc_chart(latest: Mapping[str, StoredResult]) -> Picture | None:
    """True accept rate against false accept rate of each set's last evaluation."""
    figure, (axes,) = new_figure()
    floor = 1.0
    said = []
    for number, (name, result) in enumerate(latest.items()):
        far, tar = _roc(result)
        positive = far > 0
        if not positive.any():
            continue
        floor = min(floor, float(far[positive].min()))
        color, dashes = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
        axes.plot(far[positive], tar[positive] * 100, dashes, color=color, label=label(name), drawstyle="steps-post")
        said.append(f"{name}: area under the curve {result.auc:.4f}")
    if not said:
        return None
    axes.set_xlim(floor if floor < 1 else 0.1, 1.0)
    log_axis(axes.xaxis)
    axes.set_ylim(0, 101)
    axes.set_xlabel("false accept rate (log)")
    axes.set_ylabel("true accept rate (%)")
    legend(axes)
    return Picture(
        title="ROC of the last evaluation",
        source=to_source(figure),
        alt="ROC curve with a logarithmic axis of the false accept rate. " + "; ".join(said) + ".",
        caption="The curve starts at one false accept: a set cannot measure a rate below 1 / its different pairs.",
    )


def _roc(result: StoredResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    far = np.asarray(result.roc_far, dtype=np.float64)
    tar = np.asarray(result.roc_tar, dtype=np.float64)
    order = np.argsort(far, kind="stable")
    positions = spread_evenly(order.size, 1500)
    return far[order][positions], tar[order][positions]


def score_chart(result: StoredResult) -> Picture | None:
    """Histogram of the scores of same and of different pairs, with the threshold between them."""
    finite = np.isfinite(result.scores)
    scores, same = result.scores[finite], result.same[finite]
    if not scores.size:
        return None
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.array([low - 0.5, high + 0.5])
    figure, (axes,) = new_figure()
    groups = ((False, "different", RED, "//"), (True, "same", BLUE, ""))
    for value, name, color, hatch in groups:
        counts, _ = np.histogram(scores[same == value], bins=edges)
        axes.stairs(counts, edges, fill=True, color=color, alpha=0.28, hatch=hatch)
        axes.stairs(counts, edges, color=color, linewidth=1.4, label=f"{name} ({int(counts.sum())} pairs)")
    if np.isfinite(result.threshold):
        axes.axvline(result.threshold, color=GREY, linewidth=1.2, linestyle="--",
                     label=f"threshold {result.threshold:.3f}")  # fmt: skip
    axes.set_xlabel("score (cosine of the two embeddings)")
    axes.set_ylabel("pairs per bin")
    legend(axes)
    means = [float(scores[same == value].mean()) if (same == value).any() else float("nan") for value in (True, False)]
    return Picture(
        title=f"Scores: {result.name}",
        source=to_source(figure),
        alt=f"Histogram of pair scores of {result.name} at step {result.step}: same pairs average {means[0]:.3f}, "
        f"different pairs {means[1]:.3f}, threshold {result.threshold:.3f}.",
        caption=f"Step {result.step}. Same pairs left of the threshold are false rejects, different pairs right "
        "of it false accepts.",
    )
