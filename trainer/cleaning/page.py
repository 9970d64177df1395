"""The page of ``pfc data clean``: what is suspected, why, and the faces to judge it by; one file, nothing to load."""

import io
from base64 import b64encode
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from data_pipeline import RecordReader
from trainer.cleaning.contact_sheets import ROWS, merged_sheet, split_sheet, wrong_sheet
from trainer.cleaning.survey import Survey
from trainer.cleaning.suspicion import Suspicions, Wrong
from trainer.report.drawing import BLUE, GREEN, RED, drawing_style


def cleaning_page(
    found: Survey, suspicions: Suspicions, reader: RecordReader, *, title: str, facts: dict[str, str]
) -> str:
    """HTML: thresholds with their reasons, histograms, and sheets of the ``ROWS`` worst of each kind."""
    environment = Environment(
        loader=PackageLoader("trainer.cleaning", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    noisy = by_identity(found, suspicions.wrong)
    return environment.get_template("page.html.j2").render(
        title=title,
        facts=facts,
        thresholds=[(name, _shown(name, each.value), each.reason) for name, each in suspicions.thresholds.items()],
        chart=_chart(found, suspicions),
        kinds=[
            (
                "Merged: two people in one identity",
                len(suspicions.merged),
                [merged_sheet(found, one, reader) for one in suspicions.merged[:ROWS]],
            ),
            (
                "Split: one person in two identities",
                len(suspicions.split),
                [split_sheet(found, pair, reader) for pair in suspicions.split[:ROWS]],
            ),
            (
                "Noisy: images that look like somebody else's",
                len(noisy),
                [wrong_sheet(found, number, images, reader) for number, images in list(noisy.items())[:ROWS]],
            ),
        ],
        most=ROWS,
    )


def by_identity(found: Survey, wrong: list[Wrong]) -> dict[int, list[Wrong]]:
    """Number of an identity -> its wrong images; those with the most come first."""
    grouped: dict[int, list[Wrong]] = {}
    for each in wrong:
        grouped.setdefault(int(found.owner[each.place]), []).append(each)
    return dict(sorted(grouped.items(), key=lambda item: (-len(item[1]), -item[1][0].score, item[0])))


def _shown(name: str, value: float) -> str:
    return f"{value:.2f}" if name == "split" else f"{np.degrees(value):.1f}°"


def _chart(found: Survey, suspicions: Suspicions) -> str:
    """Distributions of the three angles, with their thresholds."""
    curves: list[tuple[str, Any, str | None, str]] = [
        ("image to the mean of the others", found.own, "wrong", BLUE),
        ("mean to the nearest other mean", found.neighbour_angle, None, GREEN),
        ("two groups of an identity", found.separation, "merged", RED),
    ]
    with drawing_style():
        figure = Figure(figsize=(10.5, 2.6), layout="constrained", facecolor="white")
        for axes, (name, values, kind, color) in zip(figure.subplots(1, 3), curves, strict=True):
            known = np.degrees(values[np.isfinite(values)])
            axes.hist(known, bins=40, color=color)
            threshold = float("inf") if kind is None else float(np.degrees(suspicions.thresholds[kind].value))
            if np.isfinite(threshold):
                axes.axvline(threshold, color="#22282E", linestyle="--", linewidth=1.2)
            axes.set_title(name)
            axes.set_xlabel("degrees")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + b64encode(buffer.getvalue()).decode("ascii")
