"""What a study found, as numbers (JSON) and as a table (Markdown)."""

import json
from typing import Any

from trainer.study.candidates import described
from trainer.study.intervals import Interval, difference, interval
from trainer.study.noise_study import Findings

FIRST = "sface"  # whom the others are compared with


def result_numbers(findings: Findings) -> dict[str, Any]:
    """The content of results.json. Accuracies are fractions; nothing in it depends on when or how often it was run."""
    request = findings.request
    losses, conditions = list(request.losses), findings.conditions
    return {
        "pairs": findings.pairs.name,
        "num_pairs": len(next(iter(findings.right.values()))[0]),
        "seeds": list(request.seeds),
        "settings": {
            loss: {
                "chosen": described(tuned.chosen),
                "candidates": [
                    {"settings": described(each), "accuracy": accuracy}
                    for each, accuracy in zip(tuned.candidates, tuned.accuracies, strict=True)
                ],
            }
            for loss, tuned in findings.tuned.items()
        },
        "accuracy": [
            {
                "loss": loss,
                "noise": condition.kind,
                "share": condition.share,
                "by_seed": findings.accuracy[loss, condition.name],
                **_plain(interval_of(findings, loss, condition.name)),
            }
            for condition in conditions
            for loss in losses
        ],
        "difference": [
            {
                "loss": FIRST,
                "minus": loss,
                "noise": condition.kind,
                "share": condition.share,
                **_plain(difference(findings.right[FIRST, condition.name], findings.right[loss, condition.name])),
            }
            for condition in conditions
            for loss in losses
            if FIRST in losses and loss != FIRST
        ],
    }


def interval_of(findings: Findings, loss: str, condition: str) -> Interval:
    """The accuracy of a loss under a condition."""
    import numpy as np

    return interval(np.stack(findings.right[loss, condition]))


def result_text(numbers: dict[str, Any]) -> str:
    """results.json."""
    return json.dumps(numbers, indent=1, allow_nan=False) + "\n"


def table_rows(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: a row for each condition, a column for each loss, percent with the interval."""
    losses = list(numbers["settings"])
    rows = []
    for (kind, share), cells in _by_condition(numbers["accuracy"]).items():
        best = max(cell["mean"] for cell in cells)
        row = [_title(kind, share)]
        for cell in cells:
            text = f"{100 * cell['mean']:.1f} ({100 * cell['low']:.1f}-{100 * cell['high']:.1f})"
            row.append(f"**{text}**" if cell["mean"] == best else text)
        rows.append(row)
    return ["labels", *losses], rows


def difference_rows(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The same for sface minus each other loss, in points."""
    found = _by_condition(numbers["difference"])
    others = [cell["minus"] for cell in next(iter(found.values()), [])]
    rows = [
        [
            _title(kind, share),
            *(f"{100 * c['mean']:+.1f} ({100 * c['low']:+.1f} to {100 * c['high']:+.1f})" for c in cells),
        ]
        for (kind, share), cells in found.items()
    ]
    return ["labels", *(f"{FIRST} - {other}" for other in others)], rows


def verdicts(numbers: dict[str, Any]) -> list[str]:
    """For each condition, in words, whom SFace beats, to whom it loses and from whom it cannot be told apart."""
    found = []
    for (kind, share), cells in _by_condition(numbers["difference"]).items():
        groups = {
            "better than": [cell["minus"] for cell in cells if cell["low"] > 0],
            "worse than": [cell["minus"] for cell in cells if cell["high"] < 0],
            "not to be told from": [cell["minus"] for cell in cells if cell["low"] <= 0 <= cell["high"]],
        }
        told = "; ".join(f"{word} {', '.join(names)}" for word, names in groups.items() if names)
        found.append(f"{_title(kind, share)}: {FIRST} is {told}.")
    return found


def markdown(numbers: dict[str, Any]) -> str:
    """table.md."""
    parts = [
        f"Accuracy in % on {numbers['num_pairs']:,} clean pairs ({numbers['pairs']}), mean of "
        f"{len(numbers['seeds'])} seed(s), 95% intervals (bootstrap over seeds and pairs); best of a row in bold.",
        _markdown_table(*table_rows(numbers)),
    ]
    if numbers["difference"]:
        parts += [
            "Differences in points, on the same seeds, noise and pairs:",
            _markdown_table(*difference_rows(numbers)),
        ]
        parts += ["\n".join(f"- {line}" for line in verdicts(numbers))]
    parts += ["\n".join(f"- {loss}: {each['chosen']}" for loss, each in numbers["settings"].items())]
    return "\n\n".join(parts) + "\n"


def _plain(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _by_condition(cells: list[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["noise"], cell["share"]), []).append(cell)
    return found


def _title(kind: str, share: float) -> str:
    return "clean" if kind == "clean" else f"{kind} set, {100 * share:g}%"


def _markdown_table(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
