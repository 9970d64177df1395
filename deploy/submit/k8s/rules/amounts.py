"""Processors, memory, GPUs."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.quantity import parse
from deploy.submit.k8s.rules.reading import PodJob, pod_jobs


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Amounts that are none, requests above limits, parts of GPUs, more shared memory than memory."""
    for job in pod_jobs(documents):
        for container in job.containers:
            given = container.get("resources", {})
            try:
                requests, limits = ({k: parse(v) for k, v in given.get(p, {}).items()} for p in ("requests", "limits"))
                shared = [
                    parse(volume["emptyDir"]["sizeLimit"])
                    for volume in job.pod.get("volumes", [])
                    if volume.get("emptyDir", {}).get("medium") == "Memory" and "sizeLimit" in volume["emptyDir"]
                ]
            except (TypeError, ValueError) as error:
                yield f"{job.owner}: {error}"
                continue
            yield from _bounds(job, requests, limits)
            if "memory" in limits and sum(shared) >= limits["memory"]:
                yield f"{job.owner}: /dev/shm counts as memory, and is as large as its limit"


def _bounds(job: PodJob, requests: dict[str, Decimal], limits: dict[str, Decimal]) -> Iterator[str]:
    for name in requests.keys() & limits.keys():
        if requests[name] > limits[name]:
            yield f"{job.owner}: request of {name} above its limit"
    for name in requests.keys() | limits.keys():
        if "/" in name and (requests.get(name) != limits.get(name) or limits[name] % 1):
            yield f"{job.owner}: {name}: request and limit must be the same whole number"
