"""When a pod counts as started, as ready, and as dead.

/healthz is 503 until the first step, and whenever no step comes for long. Such a rank is mostly not itself at fault: it
waits for another one. So what ends a run that hangs is the trainer's own watchdog (``failure.stall_seconds``, 300 s),
which knows which rank is to blame and writes it down. The liveness probe is for pods whose watchdog hangs too: it looks
away until the run has started, and then has much more patience than the watchdog.
"""

from math import ceil

from deploy.submit.k8s.contract import Document

PERIOD_SECONDS = 10
LIVENESS_PERIOD_SECONDS = 30
LIVENESS_FAILURES = 40  # 20 minutes of 503


def probes(port_name: str, startup_seconds: int) -> Document:
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
            "failureThreshold": LIVENESS_FAILURES,
        },
    }
