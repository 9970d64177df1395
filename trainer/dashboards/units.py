"""Grafana's units: how a value is written, and which round numbers an axis shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from trainer.dashboards.grafana_file import Format

Scales = tuple[tuple[float, str], ...]

_SI = (("", 1e0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15))
_IEC = tuple((prefix, 1024.0**power) for power, prefix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi")))


def _prefixed(prefixes: Sequence[tuple[str, float]], unit: str) -> Scales:
    return tuple((factor, f" {prefix}{unit}".rstrip()) for prefix, factor in prefixes)


_SECONDS: Scales = (
    (1e-9, " ns"), (1e-6, " µs"), (1e-3, " ms"), (1.0, " s"), (60.0, " min"), (3600.0, " h"), (86_400.0, " d"),
)  # fmt: skip
_SCALES: dict[str, Scales] = {
    "none": ((1.0, ""),),
    "short": ((1.0, ""), (1e3, " K"), (1e6, " M"), (1e9, " B"), (1e12, " T")),
    "percentunit": ((0.01, "%"),),
    "percent": ((1.0, "%"),),
    "s": _SECONDS,
    "ms": tuple((factor * 1e3, suffix) for factor, suffix in _SECONDS),
    "bytes": _prefixed(_IEC, "B"),
    "decbytes": _prefixed(_SI, "B"),
    "Bps": _prefixed(_SI, "B/s"),
    "binBps": _prefixed(_IEC, "B/s"),
    "hertz": _prefixed(_SI, "Hz"),
    "flops": _prefixed(_SI, "FLOP/s"),
    "radian": ((1.0, " rad"),),
    "degree": ((1.0, "°"),),
    "celsius": ((1.0, " °C"),),
    "watt": _prefixed(_SI, "W"),
    "ops": ((1.0, " ops/s"),),
    "reqps": ((1.0, " req/s"),),
}
_EXACT = ("none", "locale")  # counts and numbers of steps: no digit is left out


@dataclass(frozen=True)
class Ticks:
    """Places on an axis and what is written there."""

    places: list[float]
    texts: list[str]


def value_text(value: float, form: Format) -> str:
    """A value as Grafana writes it, in three or four digits unless the format says how many decimals."""
    if not np.isfinite(value):
        return {np.inf: "inf", -np.inf: "-inf"}.get(value, "NaN")
    if form.unit == "sci":
        return _scientific(value, 2 if form.decimals is None else form.decimals)
    scale, suffix = _scale(form.unit, abs(value))
    scaled = value / scale
    if form.decimals is not None:
        number = f"{scaled:,.{form.decimals}f}"
    elif form.unit in _EXACT and scaled == round(scaled):
        number = f"{scaled:,.0f}" if form.unit == "locale" else f"{scaled:.0f}"
    else:
        number = _short(scaled)
    return number + suffix


def axis_ticks(low: float, high: float, form: Format, *, most: int = 5, whole: bool = False) -> Ticks:
    """Round numbers of the unit between ``low`` and ``high``, all in the same multiple of it.

    whole: the values are counts, so no fractions of one, where they are not percent or another multiple.
    """
    if form.unit == "sci":
        places = _round_places(low, high, most)
        return Ticks(places, [_scientific(place, 2) for place in places])
    scale, suffix = _scale(form.unit, max(abs(low), abs(high)))
    places = _round_places(low / scale, high / scale, most, whole=whole and scale == 1.0)
    decimals = _decimals_apart(places)
    return Ticks([place * scale for place in places], [f"{place:,.{decimals}f}{suffix}" for place in places])


def tick_writer(form: Format) -> Callable[[float, object], str]:
    """For a logarithmic axis, where each tick has its own multiple of the unit."""
    return lambda value, _position: value_text(value, Format(form.unit))


def _scale(unit: str, size: float) -> tuple[float, str]:
    """The largest multiple that is not above ``size``."""
    kind, _, text = unit.partition(":")
    if kind == "suffix":
        return 1.0, f" {text.strip()}"
    scales = _SCALES.get(unit) or ((1.0, "" if unit == "locale" else f" {unit}".rstrip()),)
    if not size:  # zero of seconds is 0 s, not 0 ns
        return next(((factor, suffix) for factor, suffix in scales if factor >= 1.0), scales[-1])
    return next(((factor, suffix) for factor, suffix in reversed(scales) if size >= factor * (1 - 1e-9)), scales[0])


def _short(value: float) -> str:
    size = abs(value)
    if size and size < 1e-3:
        return _scientific(value, 2)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scientific(value: float, decimals: int) -> str:
    if not value:
        return "0"
    mantissa, exponent = f"{value:.{decimals}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return mantissa if int(exponent) == 0 else f"{mantissa}e{int(exponent)}"


def _round_places(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    margin = (high - low) * 1e-9
    places = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [float(place) for place in places if low - margin <= place <= high + margin]


def _decimals_apart(places: list[float]) -> int:
    """So many that neighbours differ, and each is written as it is."""
    for decimals in range(9):
        if all(abs(round(place, decimals) - place) <= 1e-6 * (abs(places[-1] - places[0]) or 1.0) for place in places):
            return decimals
    return 9
