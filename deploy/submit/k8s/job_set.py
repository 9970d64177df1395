"""A JobSet of one Indexed Job: its controller starts all nodes again at once, and makes the headless Service."""

from collections.abc import Sequence

from deploy.submit.job import Job
from deploy.submit.k8s.contract import QUEUE_LABEL, Document, metadata
from deploy.submit.k8s.environment import place
from deploy.submit.k8s.indexed_job import completions, deadline
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.pod import pod_template

REPLICATED_JOB = CONTAINER = "node"  # Kubeflow Trainer looks for both by this name


def job_set(job: Job, options: Options) -> Document:
    """The JobSet itself."""
    about = metadata(job.name, options.namespace)
    if job.queue:
        about["labels"][QUEUE_LABEL] = job.queue
    first = f"{job.name}-{REPLICATED_JOB}-0-0.{job.name}"
    spec = job_set_spec(job, options, place=place(job, first), capped=True)
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": about, "spec": spec}


def job_set_spec(
    job: Job, options: Options, *, place: Sequence[Document], capped: bool, job_labels: Document | None = None
) -> Document:
    """place: variables that say where the pod stands. capped: whether the Job keeps the deadline.

    The first pod that fails fails its Job, and the JobSet makes a new one. Exit codes 75 and 2 are the Job's own
    affair, as without a JobSet, but that 2 must end the JobSet as well.
    """
    template: Document = {"metadata": {"labels": job_labels}} if job_labels else {}
    template["spec"] = {
        **completions(job, CONTAINER),
        "backoffLimit": 0,
        **(deadline(job) if capped else {}),
        "template": pod_template(job, options, container=CONTAINER, place=place),
    }
    return {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": job.name},
        "failurePolicy": {
            "maxRestarts": options.max_restarts,
            "restartStrategy": "BlockingRecreate",  # no new pod before the last old one is gone
            "rules": [
                {
                    "name": "bad_input_or_out_of_time",
                    "action": "FailJobSet",
                    "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"],
                }
            ],
        },
        "replicatedJobs": [{"name": REPLICATED_JOB, "replicas": 1, "template": template}],
    }
