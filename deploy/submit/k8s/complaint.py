"""What the API server, or the way to it, has to say, as one line for people."""

import json

from deploy.submit.errors import SubmitError

MISSING_CLIENT = "this needs the Kubernetes client: pip install 'pfc[kubernetes]'"
INSTALL = {
    "TrainJob": "install Kubeflow Trainer v2, or use --kind job",
    "TrainingRuntime": "install Kubeflow Trainer v2, or use --kind job",
    "JobSet": "install JobSet, or use --kind job",
    "PodMonitor": "install the Prometheus operator, or leave out --pod-monitor",
}


class RefusedError(SubmitError):
    """The server has answered, and refuses. status: of HTTP."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, 1 if status >= 500 or status == 429 else 2)
        self.status = status


class UnreachableError(SubmitError):
    """The server has not answered: what was asked for may have happened or not."""

    def __init__(self, host: str, reason: object) -> None:
        super().__init__(f"{host} does not answer ({_one_line(str(reason))}): is this the right --context?", 1)


def refused(status: int, body: bytes, verb: str, kind: str, name: str, namespace: str) -> RefusedError:
    """From a response. verb: what was tried: create, get, delete, patch, list."""
    said = _message(body)
    where = f"{kind} {name} in namespace {namespace}"
    if status == 401:
        text = f"the cluster does not know you ({said}): log in again, or use another --context"
    elif status == 403 and "exceeded quota" in said:
        text = f"the quota has no room for {where}: {said}"
    elif status == 403:
        text = f"not allowed to {verb} {where}: {said}"
    elif status == 404 and "namespaces " in said:
        text = f"there is no namespace {namespace}: create it, or give another one by --namespace"
    elif status == 404 and verb == "create":
        text = f"the cluster knows no {kind}: {INSTALL.get(kind, 'is it Kubernetes, 1.29 or newer?')}"
    elif status == 409:
        text = exists(kind, name, namespace)
    elif status in (400, 422):
        text = f"the cluster finds {where} invalid: {said}"
    else:
        text = f"cannot {verb} {where}: the cluster answers {status}: {said}"
    return RefusedError(text, status)


def exists(kind: str, name: str, namespace: str) -> str:
    """Whoever it belongs to, it is not touched."""
    return (
        f"{kind} {name} in namespace {namespace} exists already: give another --name, or remove the run that has it "
        f"(pfc cancel {name} --namespace {namespace})"
    )


def _message(body: bytes) -> str:
    """The server's reason, out of a Status object where it is one."""
    text = body.decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return _one_line(text)
    return _one_line(str(answer.get("message", text)) if isinstance(answer, dict) else text)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
