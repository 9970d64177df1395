"""Volumes and where they are mounted."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from deploy.submit.k8s.contract import CONFIG_FOLDER, CONFIG_KEY, Document
from deploy.submit.k8s.rules.reading import PodJob, of_kind, pod_jobs

SOURCES = {"configMap", "emptyDir", "persistentVolumeClaim"}
NEEDED = (CONFIG_FOLDER, "/tmp", "/dev/shm")


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Mounts of nothing, volumes for nothing, folders of the host, a configuration that is not there."""
    maps = {document["metadata"]["name"]: document.get("data", {}) for document in of_kind(documents, "ConfigMap")}
    for job in pod_jobs(documents):
        volumes = {volume["name"]: volume for volume in job.pod.get("volumes", [])}
        if len(volumes) < len(job.pod.get("volumes", [])):
            yield f"{job.owner}: two volumes of one name"
        for volume in volumes.values():
            yield from _source(job, volume, maps)
        for container in job.containers:
            yield from _mounts(job, container, volumes)


def _source(job: PodJob, volume: Document, maps: dict[str, Document]) -> Iterator[str]:
    kinds = volume.keys() - {"name"}
    if len(kinds) != 1 or not kinds <= SOURCES:
        yield f"{job.owner}: volume {volume['name']} is {sorted(kinds)}, not one of {sorted(SOURCES)}"
    if "configMap" in volume and CONFIG_KEY not in maps.get(volume["configMap"]["name"], {}):
        yield f"{job.owner}: ConfigMap {volume['configMap']['name']} with {CONFIG_KEY} is not among the objects"
    if volume.get("emptyDir", {}).get("medium", "") not in ("", "Memory"):
        yield f"{job.owner}: medium {volume['emptyDir']['medium']} of volume {volume['name']}"
    if volume.get("emptyDir", {}).get("medium") == "Memory" and "sizeLimit" not in volume["emptyDir"]:
        yield f"{job.owner}: volume {volume['name']} in memory without sizeLimit"


def _mounts(job: PodJob, container: Document, volumes: dict[str, Document]) -> Iterator[str]:
    mounts = container.get("volumeMounts", [])
    paths = [mount["mountPath"] for mount in mounts]
    if len(set(paths)) < len(paths):
        yield f"{job.owner}: two volumes at one path"
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"{job.owner}: {mount['mountPath']} is of no volume"
        if not PurePosixPath(mount["mountPath"]).is_absolute():
            yield f"{job.owner}: {mount['mountPath']} is not absolute"
    for unused in sorted(volumes.keys() - {mount["name"] for mount in mounts}):
        yield f"{job.owner}: volume {unused} is mounted nowhere"
    for path in NEEDED:
        if path not in paths:
            yield f"{job.owner}: nothing is mounted at {path}"
