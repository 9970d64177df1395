"""Accuracy against noise: a panel for each kind, a curve for each loss, its interval, and a dot for each seed."""

import io
from typing import Any

from matplotlib.figure import Figure

from trainer.report.drawing import DASHES, SERIES, drawing_style

KINDS = ("closed", "open")
_MARKERS = "osD^v"


def noise_chart(numbers: dict[str, Any]) -> bytes:
    """PNG of results.json's numbers; the clean runs begin every curve."""
    kinds = [kind for kind in KINDS if any(cell["noise"] == kind for cell in numbers["accuracy"])] or ["closed"]
    losses = list(numbers["settings"])
    with drawing_style():
        figure = Figure(figsize=(5.2 * len(kinds), 4.2), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            for place, loss in enumerate(losses):
                cells = [c for c in numbers["accuracy"] if c["loss"] == loss and c["noise"] in ("clean", kind)]
                # Side by side, or the intervals hide each other.
                x = [100 * cell["share"] + 0.7 * (place - (len(losses) - 1) / 2) for cell in cells]
                mean = [100 * cell["mean"] for cell in cells]
                below = [100 * (cell["mean"] - cell["low"]) for cell in cells]
                above = [100 * (cell["high"] - cell["mean"]) for cell in cells]
                color = SERIES[place % len(SERIES)]
                axes.errorbar(
                    x, mean, yerr=[below, above], color=color, capsize=3, linestyle=DASHES[place % len(DASHES)],
                    marker=_MARKERS[place % len(_MARKERS)], markersize=5, label=loss,
                )  # fmt: skip
                for at, cell in zip(x, cells, strict=True):
                    dots = [100 * value for value in cell["by_seed"]]
                    axes.plot([at] * len(dots), dots, ".", color=color, alpha=0.45, markersize=4)
            axes.set_title(f"{kind}-set noise")
            axes.set_xlabel("wrong labels, %" if kind == "closed" else "images of people outside, %")
            axes.set_xticks(sorted({100 * c["share"] for c in numbers["accuracy"] if c["noise"] in ("clean", kind)}))
        panels[0].set_ylabel(f"accuracy on clean pairs, % ({len(numbers['seeds'])} seed(s))")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
