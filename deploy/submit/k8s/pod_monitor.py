"""What the Prometheus operator scrapes: one endpoint for each local rank's named port (deploy/monitoring)."""

from deploy.submit.job import Job
from deploy.submit.k8s.contract import RUN_LABEL, Document, labels, metadata
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.pod import port_name

INDEX_OF_POD = "__meta_kubernetes_pod_label_batch_kubernetes_io_job_completion_index"


def pod_monitor(job: Job, options: Options) -> Document:
    """Of the pods of this run."""
    about = metadata(job.name, options.namespace)
    about["labels"] |= dict(sorted(options.monitor_labels.items()))
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": about,
        "spec": {
            "selector": {"matchLabels": labels(job.name)},
            "jobLabel": RUN_LABEL,
            "podMetricsEndpoints": [_endpoint(rank) for rank in range(job.ranks_per_node)],
        },
    }


def _endpoint(local_rank: int) -> Document:
    return {
        "port": port_name(local_rank),
        "interval": "15s",
        "honorLabels": True,  # the exporters say themselves which job and rank they are
        "relabelings": [
            {"sourceLabels": [INDEX_OF_POD], "targetLabel": "node_rank"},
            {"targetLabel": "local_rank", "replacement": str(local_rank)},
        ],
    }
