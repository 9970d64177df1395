"""Kubeflow Trainer v2: a TrainJob, and the TrainingRuntime of its own that says what its pods are.

The runtime that Trainer comes with, torch-distributed, knows nothing of ports, probes and exit codes, and a TrainJob
may not add them. Trainer sets PET_* itself and refuses them from users.
"""

from deploy.submit.job import Job
from deploy.submit.k8s.contract import QUEUE_LABEL, Document, metadata
from deploy.submit.k8s.indexed_job import deadline
from deploy.submit.k8s.job_set import job_set_spec
from deploy.submit.k8s.options import Options

API_VERSION = "trainer.kubeflow.org/v1alpha1"
ANCESTOR_LABEL = "trainer.kubeflow.org/trainjob-ancestor-step"


def training_runtime(job: Job, options: Options) -> Document:
    """Of this run alone."""
    job_set = job_set_spec(job, options, place=(), capped=False, job_labels={ANCESTOR_LABEL: "trainer"})
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRuntime",
        "metadata": metadata(job.name, options.namespace),
        "spec": {"mlPolicy": {"numNodes": job.nodes, "torch": {}}, "template": {"spec": job_set}},
    }


def train_job(job: Job, options: Options) -> Document:
    """The TrainJob itself."""
    about = metadata(job.name, options.namespace)
    if job.queue:
        about["labels"][QUEUE_LABEL] = job.queue
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": about,
        "spec": {
            **deadline(job),
            "runtimeRef": {"apiGroup": API_VERSION.partition("/")[0], "kind": "TrainingRuntime", "name": job.name},
            "trainer": {"numNodes": job.nodes, "numProcPerNode": job.ranks_per_node},
        },
    }
