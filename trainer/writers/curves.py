"""Names and values of the curves: from a line of metrics.jsonl and from results of a verification."""

import math
from collections.abc import Mapping
from typing import Any

# What is the same in every line, and what is no number to draw.
LEFT_OUT = {"time", "step", "mode", "world_size", "global_batch", "num_images", "num_identities"}
NAMES = {
    "loss": "loss/total",
    "loss_intra": "loss/intra",
    "loss_inter": "loss/inter",
    "theta_positive": "angle_radians/positive",
    "theta_negative": "angle_radians/negative",
    "theta_negative_std": "angle_radians/negative_std",
    "active_pairs": "head/active_pairs",
    "error": "head/gradient_error",
    "cut": "head/cut",
    "bytes_moved": "head/bytes_moved",
    "images_per_second": "speed/images_per_second",
    "step_seconds": "speed/step_seconds",
}
OTHERS = "train"  # the group of keys without a name above: those that later versions write


def line_curves(line: Mapping[str, Any]) -> dict[str, float]:
    """Curve -> value of a line; a table such as ``phase_seconds`` gives one curve for each of its keys."""
    curves: dict[str, float] = {}
    for key, value in line.items():
        if key in LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            curves |= {f"{key}/{name}": float(each) for name, each in value.items() if _is_number(each)}
        elif _is_number(value):
            curves[NAMES.get(key, f"{OTHERS}/{key}")] = float(value)
    return curves


def verification_curves(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Curve -> value of one pair set; numbers: as of its JSON file in ``evaluations/``."""
    pairs = numbers["name"]
    curves = {
        f"verification/{pairs}/{name}": float(numbers[key])
        for name, key in {"accuracy": "accuracy_mean", "auc": "auc", "equal_error_rate": "equal_error_rate"}.items()
    }
    tar = {f"verification/{pairs}/tar_at_far_{far}": value for far, value in numbers["tar_at_far"].items()}
    return curves | {name: float(value) for name, value in tar.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
