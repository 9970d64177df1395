"""Numbers as a reader of a narrow table wants them; "-" for what is not known."""

import math

ABSENT = "-"


def count(value: float | None) -> str:
    """12,345"""
    return ABSENT if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Three significant digits or so."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Of a share in [0, 1]."""
    return ABSENT if value is None else f"{100 * value:.0f}%"


def degrees(radians: float | None) -> str:
    """Of radians."""
    return ABSENT if radians is None else f"{math.degrees(radians):.1f}°"


def seconds(value: float | None) -> str:
    """Of one step: 0.213 s, 12.5 s."""
    if value is None:
        return ABSENT
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def duration(value: float | None) -> str:
    """Of a wait: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if value is None:
        return ABSENT
    whole = max(0, round(value))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(value: float | None) -> str:
    """Bytes in MiB or GiB."""
    if value is None:
        return ABSENT
    return f"{value / (1 << 30):.1f} GiB" if value >= 1 << 30 else f"{value / (1 << 20):.0f} MiB"
