"""What Kubernetes could not carry, said before anything is sent, in the words of the command line."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Volume
from deploy.submit.k8s import naming
from deploy.submit.k8s.contract import KILL_MARGIN_SECONDS
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.quantity import parse
from deploy.submit.k8s.storage import OWN_TARGETS, SHM
from deploy.submit.sent_config import paths_read, serves_itself_alone

LONGEST_NAME = 40  # what pods are called by hangs on it
LARGEST_CONFIG = 1024 * 1024  # etcd's limit on a ConfigMap


def refuse(job: Job, options: Options) -> None:
    """Raises SubmitError with the first objection."""
    for objection in objections(job, options):
        raise SubmitError(objection)


def objections(job: Job, options: Options) -> Iterator[str]:
    """One line each: what is wrong, and the way out."""
    if not naming.is_service(job.name) or len(job.name) > LONGEST_NAME:
        yield (
            f"name {job.name!r}: Kubernetes wants lower-case letters, digits and '-', a letter first, "
            f"at most {LONGEST_NAME}: give another one by --name"
        )
    if not job.image:
        yield "Kubernetes starts containers: give their image by --image"
    if job.grace_seconds <= KILL_MARGIN_SECONDS:
        yield (
            f"a grace time of {job.grace_seconds} s leaves none for a checkpoint: the launcher ends its ranks "
            f"{KILL_MARGIN_SECONDS} s before it is killed itself; give 600"
        )
    if options.max_restarts < 0:
        yield f"--max-restarts {options.max_restarts}: give 0 or more"
    if options.startup_seconds < 1:
        yield f"--startup-seconds {options.startup_seconds}: give 1 or more, 3600 is the default"
    if job.deadline_seconds is not None and job.deadline_seconds < 1:
        yield f"a deadline of {job.deadline_seconds} s: give 1 or more, or none"
    if len(job.config_text.encode()) > LARGEST_CONFIG:
        yield f"{job.config}: larger than the 1 MiB that a ConfigMap holds"
    yield from _names(job, options)
    yield from _metrics(job, options)
    yield from _volumes(job)
    yield from _variables(job)
    yield from _amounts(job)


def _names(job: Job, options: Options) -> Iterator[str]:
    if options.namespace is not None and not naming.is_label(options.namespace):
        yield f"--namespace {options.namespace}: no name of a namespace (lower-case letters, digits and '-')"
    for option, name in (
        ("--service-account", options.service_account),
        ("--image-pull-secret", options.image_pull_secret),
    ):
        if name is not None and not naming.is_subdomain(name):
            yield f"{option} {name}: no name that Kubernetes knows (lower-case letters, digits, '-' and '.')"
    if job.queue is not None and not naming.is_label(job.queue):
        yield f"queue {job.queue!r}: no name of a local queue of Kueue (lower-case letters, digits and '-')"
    for what, pairs in (("node selector", job.node_selector), ("--pod-monitor-label", options.monitor_labels)):
        for key, value in pairs.items():
            if not naming.is_label_key(key) or not naming.is_label_value(value):
                yield f"{what} {key}={value}: not a label (letters, digits, '-', '_', '.', at most 63)"
    for toleration in job.tolerations:
        if toleration.effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            yield f"toleration of {toleration.key}: effect {toleration.effect!r} is none of NoSchedule, NoExecute"
        if not toleration.key and toleration.value is not None:
            yield "a toleration without a key tolerates every taint: leave out its value as well"
        if toleration.key and not naming.is_label_key(toleration.key):
            yield f"toleration {toleration.key!r}: not the key of a taint"


def _metrics(job: Job, options: Options) -> Iterator[str]:
    if options.pod_monitor and job.metrics_port is None:
        yield "--pod-monitor: the run serves no metrics; set metrics.port in its configuration (9500)"
    if job.metrics_port is not None and serves_itself_alone(job.config_text):
        yield (
            "metrics.address is the pod's own loopback, where neither the kubelet's probes nor Prometheus reach it: "
            "leave it out (0.0.0.0)"
        )
    if options.monitor_labels and not options.pod_monitor:
        yield "--pod-monitor-label has no effect without --pod-monitor"
    if job.metrics_port is not None and job.metrics_port + job.ranks_per_node - 1 > 65535:
        yield f"metrics.port {job.metrics_port} + {job.ranks_per_node} ranks: beyond 65535, take a lower one"


def _volumes(job: Job) -> Iterator[str]:
    seen: set[str] = set()
    for volume in job.volumes:
        if volume.source.startswith(("/", ".", "~")):
            yield (
                f"volume {volume.source}: a folder of the host is not passed to pods; make a PersistentVolumeClaim of "
                f"it and give CLAIM:{volume.target}"
            )
        elif not naming.is_subdomain(volume.source):
            yield f"volume {volume.source!r}: no name of a PersistentVolumeClaim"
        target = PurePosixPath(volume.target)
        if not target.is_absolute() or ".." in target.parts or ":" in volume.target or len(target.parts) < 2:
            yield f"volume {volume.source}:{volume.target}: give an absolute folder in the container, such as /data"
        own = next((each for each in OWN_TARGETS if target == PurePosixPath(each) or each in _parents(target)), None)
        if own:
            yield f"volume {volume.source}:{volume.target}: {own} is the run's own, take another folder"
        if str(target) in seen:
            yield f"two volumes at {volume.target}: take two folders"
        seen.add(str(target))
    nearest = _holder(job, PurePosixPath(job.output))
    if nearest is None:
        yield (
            f"run.output {job.output} is on no volume, and would be lost with its pod: give the claim that holds it, "
            "such as CLAIM:/runs, and set run.output below it"
        )
    elif nearest.read_only:
        yield f"run.output {job.output} is on volume {nearest.source}, which is read-only: mount it writable"
    for key, path in paths_read(job.config_text):
        if _holder(job, PurePosixPath(path)) is None:
            folder = path.parent if path.suffix else path
            yield f"{key} {path} is on no volume: give the claim that holds it, such as --volume CLAIM:{folder}:ro"


def _holder(job: Job, path: PurePosixPath) -> Volume | None:
    """The innermost volume at or above ``path``."""
    around = [volume for volume in job.volumes if path.is_relative_to(volume.target)]
    return max(around, key=lambda volume: len(PurePosixPath(volume.target).parts), default=None)


def _parents(path: PurePosixPath) -> list[str]:
    return [str(parent) for parent in path.parents]


def _variables(job: Job) -> Iterator[str]:
    for name in (*job.passed_through, *job.environment, *job.secrets):
        if not naming.is_variable(name):
            yield f"variable {name!r}: no name that Kubernetes knows"
        if name.startswith("PET_"):
            yield f"variable {name}: PET_* say where a node stands, and are set for you; leave it out"
        if name == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT":
            yield f"variable {name}: it follows from the grace time; give that instead"
    for name, where in job.secrets.items():
        secret, _, key = where.partition("/")
        if not naming.is_subdomain(secret) or not naming.is_secret_key(key):
            yield f"secret for {name}: write it as SECRET/KEY, the names of a Secret and of a key in it"
        if name in job.environment or name in job.passed_through:
            yield f"variable {name}: given both as a value and from a secret; leave the value out"


def _amounts(job: Job) -> Iterator[str]:
    amounts = {}
    for option, text in (
        ("cpus", job.resources.cpus),
        ("memory", job.resources.memory),
        ("shm", job.resources.shm or SHM),
    ):
        try:
            if text is not None:
                amounts[option] = parse(text)
        except ValueError as error:
            yield f"--{option}: {error}"
    if "memory" in amounts and "shm" in amounts and amounts["shm"] >= amounts["memory"]:
        yield (
            f"/dev/shm of {job.resources.shm or SHM} counts as memory, of which there is {job.resources.memory}: "
            "give more by --memory, or less by --shm"
        )
