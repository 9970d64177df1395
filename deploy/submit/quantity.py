"""Amounts as Kubernetes writes them ("500m", "32Gi"), for targets that want plain numbers."""

import re

from deploy.submit.errors import SubmitError

_BYTES = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]i|[kMGTPE]|)")
_CPUS = re.compile(r"(\d+(?:\.\d+)?)(m?)")
_POWERS = {"": 0, "K": 1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def bytes_of(text: str, what: str) -> int:
    """Bytes of ``32Gi`` (1024) or ``32G`` (1000). Raises SubmitError, which calls it ``what``."""
    match = _BYTES.fullmatch(text)
    if match is None:
        raise SubmitError(f"{what} {text}: no amount of memory; write it as 32Gi, 500Mi or a number of bytes")
    number, unit = match.groups()
    return int(float(number) * (1024 if unit.endswith("i") else 1000) ** _POWERS[unit[:1]])


def cpus_of(text: str, what: str) -> float:
    """Processors of ``8`` or ``500m``. Raises SubmitError, which calls it ``what``."""
    match = _CPUS.fullmatch(text)
    if match is None or float(match.group(1)) == 0:
        raise SubmitError(f"{what} {text}: no number of processors; write it as 8, 1.5 or 500m")
    return float(match.group(1)) / (1000 if match.group(2) else 1)
