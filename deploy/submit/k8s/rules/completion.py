"""One pod for each node, and when all of them start again."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.rules.reading import of_kind, pod_jobs

MODES = ("Indexed",)
REPLACEMENTS = ("Failed",)
SET_ACTIONS = (
    "FailJobSet",
    "RestartJobSet",
    "RestartJobSetAndIgnoreMaxRestarts",
    "RestartJob",
    "RestartJobAndIgnoreMaxRestarts",
)
STRATEGIES = ("Recreate", "BlockingRecreate", "InPlaceRestart")
REASONS = (
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
)


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Jobs that would run with a part of their nodes, or two pods of one."""
    for job in pod_jobs(documents):
        spec = job.spec
        if spec.get("completionMode") not in MODES:
            yield f"{job.owner}: completionMode {spec.get('completionMode')}: nodes need an index"
        if spec.get("completions") != spec.get("parallelism"):
            yield f"{job.owner}: completions {spec.get('completions')}, parallelism {spec.get('parallelism')}"
        if spec.get("podReplacementPolicy") not in REPLACEMENTS:
            yield f"{job.owner}: podReplacementPolicy must be Failed beside a podFailurePolicy"
        for field in ("backoffLimit", "backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(field, 0) < 0:
                yield f"{job.owner}: {field} is negative"
        if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
            yield f"{job.owner}: maxFailedIndexes goes with backoffLimitPerIndex alone"
        if spec.get("activeDeadlineSeconds", 1) < 1:
            yield f"{job.owner}: activeDeadlineSeconds must be positive"
        if job.pod.get("restartPolicy") != "Never":
            yield f"{job.owner}: restartPolicy must be Never beside a podFailurePolicy"
    for document in of_kind(documents, "JobSet", "TrainingRuntime"):
        spec = document["spec"]
        spec = spec if document["kind"] == "JobSet" else spec["template"]["spec"]
        yield from _failure_policy(document["kind"], spec.get("failurePolicy", {}))


def _failure_policy(kind: str, policy: Document) -> Iterator[str]:
    if policy.get("maxRestarts", 0) < 0:
        yield f"{kind}: maxRestarts is negative"
    if policy.get("restartStrategy", "Recreate") not in STRATEGIES:
        yield f"{kind}: restartStrategy {policy['restartStrategy']} is none of {', '.join(STRATEGIES)}"
    for rule in policy.get("rules", []):
        if rule["action"] not in SET_ACTIONS:
            yield f"{kind}: action {rule['action']} is none of {', '.join(SET_ACTIONS)}"
        for reason in rule.get("onJobFailureReasons", []):
            if reason not in REASONS:
                yield f"{kind}: no Job fails with reason {reason}"
