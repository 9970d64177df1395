"""What the CRD of PodMonitor knows: there is no published model of it in Python."""

from typing import Any

# Fields of monitoring.coreos.com/v1 PodMonitor (prometheus-operator's API reference) that may be used here, by type.
# The CRD prunes others without a word: a misspelt field would just not be there.
SPEC = {
    "attachMetadata": dict,
    "jobLabel": str,
    "labelLimit": int,
    "namespaceSelector": dict,
    "podMetricsEndpoints": list,
    "podTargetLabels": list,
    "sampleLimit": int,
    "selector": dict,
    "targetLimit": int,
}
ENDPOINT = {
    "enableHttp2": bool,
    "filterRunning": bool,
    "followRedirects": bool,
    "honorLabels": bool,
    "honorTimestamps": bool,
    "interval": str,
    "metricRelabelings": list,
    "path": str,
    "port": str,
    "relabelings": list,
    "scheme": str,
    "scrapeTimeout": str,
}
RELABELING = {
    "action": str,
    "modulus": int,
    "regex": str,
    "replacement": str,
    "separator": str,
    "sourceLabels": list,
    "targetLabel": str,
}


def of_known_fields(given: dict[str, Any], known: dict[str, type]) -> None:
    for field, value in given.items():
        assert field in known, f"the CRD has no field {field}"
        assert type(value) is known[field], (field, value)
