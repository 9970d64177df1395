"""When a pod counts as started, as ready, and as dead.

/healthz is 503 until the first step, and whenever no step comes for long. Such a rank is mostly not itself at fault: it
waits for another one. So what ends a run that hangs is the trainer's own watchdog (``failure.stall_seconds`` within a
step, ``run.timeout_seconds`` beside it), which knows which rank is to blame and writes it down. The liveness probe is
for pods whose watchdog hangs too: it looks away until the run has started, and then has much more patience.
"""

import tomllib
from math import ceil

from deploy.submit.k8s.contract import Document

PERIOD_SECONDS = 10
LIVENESS_PERIOD_SECONDS = 30
STALL_SECONDS, TIMEOUT_SECONDS = 300.0, 600.0  # unless the configuration says otherwise
PATIENCE = 4.0  # times the trainer's own


def patience_seconds(config_text: str) -> float:
    """How long a run may stand still before a pod is ended for it."""
    tables = tomllib.loads(config_text)
    stall = float(tables.get("failure", {}).get("stall_seconds", STALL_SECONDS))
    return PATIENCE * max(stall, float(tables.get("run", {}).get("timeout_seconds", TIMEOUT_SECONDS)))


def probes(port_name: str, *, startup_seconds: int, patience_seconds: float) -> Document:
    """Of a container whose first rank answers /healthz on the port of that name."""
    ask = {"httpGet": {"path": "/healthz", "port": port_name}, "timeoutSeconds": 5}
    return {
        "startupProbe": {
            **ask,
            "periodSeconds": PERIOD_SECONDS,
            "failureThreshold": max(1, ceil(startup_seconds / PERIOD_SECONDS)),
        },
        "readinessProbe": {**ask, "periodSeconds": PERIOD_SECONDS, "failureThreshold": 1},
        "livenessProbe": {
            **ask,
            "periodSeconds": LIVENESS_PERIOD_SECONDS,
            "failureThreshold": ceil(patience_seconds / LIVENESS_PERIOD_SECONDS),
        },
    }
