"""podFailurePolicy: what exit codes of the launcher mean."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import BAD_INPUT, STOPPED, Document
from deploy.submit.k8s.rules.reading import PodJob, pod_jobs

ACTIONS = ("FailJob", "FailIndex", "Ignore", "Count")
MOST_RULES = 20


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Rules that the API server would refuse, and codes that would mean something else than the contract says."""
    for job in pod_jobs(documents):
        rules = job.spec.get("podFailurePolicy", {}).get("rules", [])
        if not 0 < len(rules) <= MOST_RULES:
            yield f"{job.owner}: podFailurePolicy has {len(rules)} rules, not 1 to {MOST_RULES}"
        for number, rule in enumerate(rules):
            for problem in _of_rule(rule, job):
                yield f"{job.owner}: podFailurePolicy.rules.{number}: {problem}"
        for code, action in ((STOPPED, "Ignore"), (BAD_INPUT, "FailJob"), (1, "Count"), (137, "Count")):
            if (found := _action(rules, code)) != action:
                yield f"{job.owner}: exit code {code} means {found}, not {action}"


def _of_rule(rule: Document, job: PodJob) -> Iterator[str]:
    if rule.get("action") not in ACTIONS:
        yield f"action {rule.get('action')} is none of {', '.join(ACTIONS)}"
    if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in job.spec:
        yield "FailIndex goes with backoffLimitPerIndex alone"
    if ("onExitCodes" in rule) == ("onPodConditions" in rule):
        yield "give either onExitCodes or onPodConditions"
    for condition in rule.get("onPodConditions", []):
        if condition.get("status") not in ("True", "False", "Unknown"):
            yield f"status {condition.get('status')!r} of condition {condition.get('type')}"
    if codes := rule.get("onExitCodes"):
        values = codes.get("values", [])
        if codes.get("operator") not in ("In", "NotIn"):
            yield f"operator {codes.get('operator')}"
        if not values or values != sorted(set(values)) or not all(0 <= value <= 255 for value in values):
            yield f"values {values}: sorted, each once, 0 to 255"
        if codes.get("operator") == "In" and 0 in values:
            yield "exit code 0 is no failure"
        named = codes.get("containerName")
        if named is not None and named not in [container["name"] for container in job.containers]:
            yield f"containerName {named}: the pod has no such container"


def _action(rules: Sequence[Document], code: int) -> str:
    """Of the first rule that an exit code alone meets."""
    for rule in rules:
        codes = rule.get("onExitCodes")
        if codes and (code in codes.get("values", [])) == (codes.get("operator") == "In"):
            return str(rule.get("action"))
    return "Count"
