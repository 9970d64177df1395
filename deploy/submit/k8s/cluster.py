"""A namespace of a cluster: objects in and out of it, as plain documents, through the official client.

The client's own models are left aside: they would drop or refuse what a newer server knows.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from deploy.submit.k8s.complaint import RefusedError, UnreachableError, refused
from deploy.submit.k8s.contract import RUN_LABEL, Document

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 300.0  # of a log that is followed; a link that was lost says nothing either

# apiVersion and plural by kind.
KINDS = {
    "ConfigMap": ("v1", "configmaps"),
    "Service": ("v1", "services"),
    "Pod": ("v1", "pods"),
    "Event": ("v1", "events"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Job": ("batch/v1", "jobs"),
    "JobSet": ("jobset.x-k8s.io/v1alpha2", "jobsets"),
    "TrainJob": ("trainer.kubeflow.org/v1alpha1", "trainjobs"),
    "TrainingRuntime": ("trainer.kubeflow.org/v1alpha1", "trainingruntimes"),
    "PodMonitor": ("monitoring.coreos.com/v1", "podmonitors"),
}


class Cluster:
    """client: a ``kubernetes.client.ApiClient``. kubectl: its words for the same cluster and namespace.

    All methods raise SubmitError: RefusedError, UnreachableError.
    """

    def __init__(self, client: Any, namespace: str, kubectl: Sequence[str] = ("kubectl",)) -> None:
        self._client = client
        self._kubectl = kubectl
        self.namespace = namespace

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self._client.configuration.host)

    def kubectl_delete(self, documents: Sequence[Document]) -> str:
        """The command that removes them by hand, as far as they are there."""
        return shlex.join([*self._kubectl, "delete", "--ignore-not-found", *map(_resource, documents)])

    def create(self, document: Document) -> Document:
        """The object as the server has it, with its uid."""
        return self._ask("POST", document["kind"], document["metadata"]["name"], body=document)

    def read(self, kind: str, name: str) -> Document | None:
        """None where there is none, or no such kind."""
        return self._ask_for("GET", kind, name)

    def delete(
        self,
        kind: str,
        name: str,
        *,
        uid: str | None = None,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Gone already is as good. uid: of the object that is meant, if not whichever has the name now.

        propagation: "Foreground": the object stays, being deleted, until what belongs to it is gone. grace_seconds: of
        a pod, None: its own.
        """
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        self._ask_for("DELETE", kind, name, body=options)

    def patch(self, kind: str, name: str, change: Document) -> None:
        """Merge ``change`` into the object."""
        self._ask("PATCH", kind, name, body=change, content="application/merge-patch+json")

    def pods(self, run: str) -> list[Document]:
        """All that belong to a run, those that have ended, too."""
        found = self._ask("GET", "Pod", "", query={"labelSelector": f"{RUN_LABEL}={run}"})
        return list(found.get("items") or [])

    def last_warning(self, name: str) -> str:
        """Why a controller cannot do what the object of that name asks for; "" if none says so, or it is not shown."""
        selector = f"involvedObject.name={name},type=Warning"
        try:
            found = self._ask("GET", "Event", "", query={"fieldSelector": selector}).get("items") or []
        except RefusedError:
            return ""
        newest: Document = max(
            found, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime")), default={}
        )
        return " ".join(str(newest.get("message", "")).split())

    def log(self, pod: str, container: str) -> Iterator[str]:
        """Lines that a pod has printed so far."""
        return self._log(pod, {"container": container}, ANSWER_SECONDS)

    def follow(self, pod: str, container: str, since: str | None) -> Iterator[tuple[str, str]]:
        """Lines with their time stamps, as they come; since: without those before the second of that stamp.

        It ends when the container has, and sometimes before; UnreachableError also after a long silence.
        """
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since is not None:
            query["sinceTime"] = re.sub(r"\.\d+", "", since)  # whole seconds are all that is taken
        for line in self._log(pod, query, SILENCE_SECONDS):
            stamp, _, text = line.partition(" ")
            yield stamp, text

    def _log(self, pod: str, query: dict[str, str], seconds: float) -> Iterator[str]:
        path = f"{_path('Pod', self.namespace, pod)}/log"
        raw = self._send("GET", path, query, None, "application/json", seconds).response
        if raw.status >= 300:
            raise refused(raw.status, raw.data, "read the log of", "Pod", pod, self.namespace)
        yield from self._lines(raw)

    def _ask_for(self, method: str, kind: str, name: str, **request: Any) -> Document | None:
        """None for 404 that speaks of this object or its kind; a missing namespace is an error."""
        try:
            return self._ask(method, kind, name, **request)
        except RefusedError as error:
            if error.status == 404 and "no namespace" not in str(error):
                return None
            raise

    def _ask(
        self,
        method: str,
        kind: str,
        name: str,
        *,
        body: Document | None = None,
        query: dict[str, str] | None = None,
        content: str = "application/json",
    ) -> Document:
        path = _path(kind, self.namespace, None if method == "POST" else name)
        response = self._send(method, path, query or {}, body, content, ANSWER_SECONDS)
        answer: bytes = self._data(response)
        if response.status >= 300:
            verb = {"POST": "create", "GET": "get" if name else "list"}.get(method, method.lower())
            raise refused(response.status, answer, verb, kind, name, self.namespace)
        document: Document = json.loads(answer)
        return document

    def _send(
        self, method: str, path: str, query: dict[str, str], body: Document | None, content: str, seconds: float | None
    ) -> Any:
        import urllib3

        headers = {"Accept": "application/json, */*", "Content-Type": content}
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            return self._client.call_api(*request, _request_timeout=(CONNECT_SECONDS, seconds))
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(self.host, getattr(error, "reason", error) or error) from None

    def _data(self, response: Any) -> bytes:
        import urllib3

        try:
            return bytes(response.read())
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(self.host, error) from None

    def _lines(self, raw: Any) -> Iterator[str]:
        import urllib3

        rest = b""
        try:
            for chunk in raw.stream(None):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(self.host, error) from None
        finally:
            raw.close()
        if rest:
            yield rest.decode(errors="replace")


def _resource(document: Document) -> str:
    version, plural = KINDS[document["kind"]]
    group = version.partition("/")[0] if "/" in version else ""
    return f"{plural}{f'.{group}' if group else ''}/{document['metadata']['name']}"


def _path(kind: str, namespace: str, name: str | None) -> str:
    version, plural = KINDS[kind]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")
