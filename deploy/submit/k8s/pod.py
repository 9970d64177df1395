"""The pod of one node: the same whatever creates it."""

from collections.abc import Sequence

from deploy.submit.job import Job, Toleration
from deploy.submit.k8s.contract import CONFIG_FOLDER, CONFIG_KEY, USER_ID, Document, labels
from deploy.submit.k8s.environment import settings
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.probes import patience_seconds, probes
from deploy.submit.k8s.storage import mounts, volumes

GPU = "nvidia.com/gpu"
COMMAND = ("python", "-m", "deploy.launch.agent", "-m", "trainer", "train", f"{CONFIG_FOLDER}/{CONFIG_KEY}")


def pod_template(
    job: Job, options: Options, *, container: str, place: Sequence[Document], subdomain: str | None = None
) -> Document:
    """container: its name. place: variables that say where the pod stands. subdomain: None: somebody else sets it."""
    spec: Document = {
        "restartPolicy": "Never",  # a new pod, on another machine if need be; podFailurePolicy asks for it
        "terminationGracePeriodSeconds": job.grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service named pet would set PET_PORT
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",  # Always would walk through millions of files
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if subdomain:
        spec["subdomain"] = subdomain
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.image_pull_secret:
        spec["imagePullSecrets"] = [{"name": options.image_pull_secret}]
    if job.node_selector:
        spec["nodeSelector"] = dict(sorted(job.node_selector.items()))
    if job.tolerations:
        spec["tolerations"] = [_toleration(each) for each in job.tolerations]
    spec["volumes"] = volumes(job)
    spec["containers"] = [_container(job, options, container, [*place, *settings(job)])]
    return {"metadata": {"labels": labels(job.name)}, "spec": spec}


def port_name(local_rank: int) -> str:
    """Of the exporter of a pod's rank."""
    return f"metrics-{local_rank}"


def _container(job: Job, options: Options, name: str, variables: list[Document]) -> Document:
    container: Document = {"name": name, "image": job.image, "command": list(COMMAND), "env": variables}
    if resources := _resources(job):
        container["resources"] = resources
    if job.metrics_port is not None:
        container["ports"] = [
            {"name": port_name(rank), "containerPort": job.metrics_port + rank, "protocol": "TCP"}
            for rank in range(job.ranks_per_node)
        ]
        patience = patience_seconds(job.config_text)
        container |= probes(port_name(0), startup_seconds=options.startup_seconds, patience_seconds=patience)
    container["volumeMounts"] = mounts(job)
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # What the launcher says last tells more than "Error".
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    return container


def _resources(job: Job) -> Document:
    """Processors have no limit: a throttled loader starves a GPU. Memory has: the rest of the machine must not swap."""
    requests, limits = {}, {}
    if job.resources.cpus:
        requests["cpu"] = job.resources.cpus
    if job.resources.memory:
        requests["memory"] = limits["memory"] = job.resources.memory
    if job.gpus:
        requests[GPU] = limits[GPU] = str(job.ranks_per_node)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _toleration(toleration: Toleration) -> Document:
    document: Document = {"key": toleration.key} if toleration.key else {}
    if toleration.value is None:
        document["operator"] = "Exists"
    else:
        document |= {"operator": "Equal", "value": toleration.value}
    if toleration.effect:
        document["effect"] = toleration.effect
    return document
