"""All objects of a run, in the order in which they are sent: what pods need first, what starts them last."""

from collections.abc import Sequence

from deploy.submit.job import Job
from deploy.submit.k8s.contract import CONFIG_KEY, Document, metadata
from deploy.submit.k8s.indexed_job import headless_service, indexed_job
from deploy.submit.k8s.job_set import job_set
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.pod_monitor import pod_monitor
from deploy.submit.k8s.train_job import train_job, training_runtime


def documents(job: Job, options: Options) -> list[Document]:
    """The last one is the workload, to which the others belong."""
    rendered = [config_map(job, options)]
    if options.pod_monitor:
        rendered.append(pod_monitor(job, options))
    if options.kind == "trainjob":
        return [*rendered, training_runtime(job, options), train_job(job, options)]
    if options.kind == "jobset":
        return [*rendered, job_set(job, options)]
    return [*rendered, headless_service(job, options), indexed_job(job, options)]


def config_map(job: Job, options: Options) -> Document:
    """The run's TOML. A run whose configuration changed half-way would be another one."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job.name, options.namespace),
        "immutable": True,
        "data": {CONFIG_KEY: job.config_text},
    }


def to_yaml(rendered: Sequence[Document]) -> str:
    """For kubectl and for a repository: texts as they are, every object written out, always in the same order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump_all(rendered, Dumper=Dumper, sort_keys=False, explicit_start=True, allow_unicode=True, width=120)
