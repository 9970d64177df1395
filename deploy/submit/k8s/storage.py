"""Volumes of a pod: the configuration, scratch, shared memory, and the claims that the user names."""

from deploy.submit.job import Job
from deploy.submit.k8s.contract import CONFIG_FOLDER, Document

SHM = "1Gi"  # unless asked for otherwise; without a limit it may fill the node's memory
OWN_TARGETS = (CONFIG_FOLDER, "/tmp", "/dev/shm")


def volumes(job: Job) -> list[Document]:
    """Each claim once, however often it is mounted."""
    shm = {"medium": "Memory", "sizeLimit": job.resources.shm or SHM}
    return [
        {"name": "config", "configMap": {"name": job.name, "defaultMode": 0o444}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": shm},
        *(
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
            for number, claim in enumerate(claims(job))
        ),
    ]


def mounts(job: Job) -> list[Document]:
    """Where the container sees them."""
    names = claims(job)
    return [
        {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
        *(
            {
                "name": f"claim-{names.index(volume.source)}",
                "mountPath": volume.target,
                "readOnly": volume.read_only,
            }
            for volume in job.volumes
        ),
    ]


def claims(job: Job) -> list[str]:
    """Names of the PersistentVolumeClaims that its pods mount."""
    return list(dict.fromkeys(volume.source for volume in job.volumes))
