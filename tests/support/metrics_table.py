"""The table of metrics in trainer/metrics/README.md, which
tests/unit/test_metrics_readme.py compares with what is exported.
"""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "trainer" / "metrics" / "README.md"
_ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|gauge 1|histogram) \|", re.MULTILINE)
_KINDS = {"gauge 1": "info"}


def told_metrics() -> dict[str, str]:
    """Type by name: counters with _total, facts with _info."""
    return {name: _KINDS.get(kind, kind) for name, kind in _ROW.findall(README.read_text(encoding="utf-8"))}


def told_series() -> set[str]:
    """Names of the series of these: a histogram has three."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in told_metrics().items() for suffix in suffixes.get(kind, ("",))}
