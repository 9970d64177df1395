"""An Indexed Job, one pod for each node, and the headless Service by which they find the first.

What starts all nodes again: when one pod fails, the launchers of the others see it and end with 1 within a minute; the
Job replaces every pod that has ended, each under its own index and name, and the new ones meet at the same address. So
a restart of the run is one failure of each index, and ``backoffLimitPerIndex`` counts restarts of the run. (A
``backoffLimit`` would count pods, as many as there are nodes, and make the delay double with each of them.)
"""

from deploy.submit.job import Job
from deploy.submit.k8s.contract import BAD_INPUT, MASTER_PORT, QUEUE_LABEL, STOPPED, Document, labels, metadata
from deploy.submit.k8s.environment import place
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.pod import pod_template

CONTAINER = "trainer"


def indexed_job(job: Job, options: Options) -> Document:
    """The Job itself."""
    about = metadata(job.name, options.namespace)
    if job.queue:
        about["labels"][QUEUE_LABEL] = job.queue  # Kueue suspends the Job until there is room for all of it
    template = pod_template(
        job, options, container=CONTAINER, place=place(job, f"{job.name}-0.{job.name}"), subdomain=job.name
    )
    spec = {
        **completions(job, CONTAINER),
        "backoffLimitPerIndex": options.max_restarts,
        "maxFailedIndexes": 0,  # a run without one of its nodes is none
        **deadline(job),
        "template": template,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}


def completions(job: Job, container: str) -> Document:
    """One pod for each node, each of which is replaced only when it has ended, and what its exit code means."""
    return {
        "completionMode": "Indexed",
        "completions": job.nodes,
        "parallelism": job.nodes,
        "podReplacementPolicy": "Failed",  # never two pods of one index, which would meet the others twice
        "podFailurePolicy": failure_policy(container),
    }


def deadline(job: Job) -> Document:
    """The cap, where there is one."""
    return {} if job.deadline_seconds is None else {"activeDeadlineSeconds": job.deadline_seconds}


def failure_policy(container: str) -> Document:
    """Exit codes of the launcher; sidecars that a mesh adds do not count."""
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": _codes(container, "In", STOPPED)},
            {"action": "FailJob", "onExitCodes": _codes(container, "In", BAD_INPUT)},
            {"action": "Count", "onExitCodes": _codes(container, "NotIn", BAD_INPUT, STOPPED)},
        ]
    }


def headless_service(job: Job, options: Options) -> Document:
    """Gives NAME-0.NAME an address, ready or not: nobody is before all have met."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job.name, options.namespace),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels(job.name),
            "ports": [{"name": "rendezvous", "port": MASTER_PORT, "protocol": "TCP"}],
        },
    }


def _codes(container: str, operator: str, *values: int) -> Document:
    return {"containerName": container, "operator": operator, "values": sorted(values)}
