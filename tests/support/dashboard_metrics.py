"""Which metrics an expression names."""

import re

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_METRIC = re.compile(r"\b(?:pfc|process|python)_\w+")


def metrics_of(expression: str) -> set[str]:
    """Names of the series that an expression reads."""
    return set(_METRIC.findall(_STRING.sub('""', expression)))
