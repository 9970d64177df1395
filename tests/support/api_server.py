"""An API server that remembers what it is told (kmock), with what its like has beyond that: uids, selectors, garbage.

It admits, schedules and starts nothing. Tests say what controllers and kubelets would report.
"""

import asyncio
import fnmatch
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp.web
import kmock
import yaml

Document = dict[str, Any]
ERRORS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists"}
ERRORS |= {422: "Invalid", 500: "InternalError", 503: "ServiceUnavailable"}
DEADLINE_SECONDS = 60.0


class ApiServer(kmock.KubernetesEmulator):  # type: ignore[misc]
    """refusals: by "VERB plural" (``create services``, ``* jobsets``), what is answered instead.

    hangs_up: after which of them it does what is asked, and breaks the connection instead of saying so. slow: which of
    them wait until they are taken out. deletions: grace time by name, as it was asked for. printed: by pod. breaks:
    pods whose log breaks off after a line, once.
    """

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.refusals: dict[str, tuple[int, str]] = {}
        self.hangs_up: set[str] = set()
        self.printed: dict[str, list[str]] = {}
        self.breaks: set[str] = set()
        self.slow: set[str] = set()
        self.deletions: dict[str, int | None] = {}
        self.said: list[str] = []
        self.more = threading.Event()
        self._uids = itertools.count(1)

    async def _handle(self, request: Any) -> aiohttp.web.StreamResponse:
        plural = request.resource.plural if request.resource else ""
        action = str(getattr(request.action, "value", request.action)).lower()
        if request.subresource == "log":
            plural = "pods/log"
        self.said.append(f"{action} {plural}")
        for pattern, (status, message) in self.refusals.items():
            if fnmatch.fnmatchcase(f"{action} {plural}", pattern):
                raise kmock.KubernetesError(status=status, reason=ERRORS[status], message=message)
        while f"{action} {plural}" in self.slow:
            await asyncio.sleep(0.02)
        if plural == "pods/log":
            return await self._print(request)
        if action == "create":
            about = request.data["metadata"]
            about["uid"] = f"uid-{next(self._uids)}"
            if about.setdefault("namespace", request.namespace) != request.namespace:
                raise kmock.KubernetesError(status=400, reason="BadRequest", message="the namespace does not match")
        if action == "delete":
            self._prepare_deletion(request)
        if action == "list" and plural in ("pods", "events"):
            return self._selected(request)
        response = await super()._handle(request)
        if action == "delete":
            self.collect_garbage()
        if f"{action} {plural}" in self.hangs_up:
            request._raw_request.transport.abort()
        return response

    def there(self) -> set[str]:
        """``plural/name`` of all objects, claims apart."""
        found = {f"{key[0].plural}/{key[2]}" for key, found in self.objects.items() if not found.deleted}
        return {each for each in found if not each.startswith("persistentvolumeclaims/")}

    def found(self, resource: str, name: str, namespace: str = "ml") -> Document:
        raw: Document = self.objects[resource, namespace, name].raw
        return raw

    def report(self, resource: str, name: str, status: Document, namespace: str = "ml") -> None:
        """What a controller or kubelet would write."""
        self.objects[resource, namespace, name].patch({"status": status})

    def add(self, resource: str, document: Document, namespace: str = "ml") -> None:
        about = document["metadata"]
        about |= {"namespace": namespace, "uid": f"uid-{next(self._uids)}"}
        self.objects[resource, namespace, about["name"]] = document

    def finish(self, resource: str, name: str, namespace: str = "ml") -> None:
        """All that an object being deleted waited for is gone."""
        self.objects[resource, namespace, name].delete()
        self.collect_garbage()

    def collect_garbage(self) -> None:
        """Objects whose owners are all gone."""
        alive = {found["metadata"].get("uid") for found in self.objects.values() if not found.deleted}
        for found in list(self.objects.values()):
            if found.deleted:
                continue
            owners = found.raw["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in alive for owner in owners):
                found.delete()
                self.collect_garbage()
                return

    def _prepare_deletion(self, request: Any) -> None:
        key = (request.resource, request.namespace, request.name)
        self.deletions[request.name] = (request.data or {}).get("gracePeriodSeconds")
        if key not in self.objects or self.objects[key].deleted:
            return
        wanted = (request.data or {}).get("preconditions", {}).get("uid")
        if wanted not in (None, self.objects[key].raw["metadata"].get("uid")):
            raise kmock.KubernetesError(status=409, reason="Conflict", message="the UID in the precondition differs")
        if (request.data or {}).get("propagationPolicy") == "Foreground":
            self.objects[key].patch({"metadata": {"finalizers": ["foregroundDeletion"]}})

    def _selected(self, request: Any) -> aiohttp.web.Response:
        """As the one selector asks: of labels, or of fields of events."""
        label, _, value = request.params.get("labelSelector", "").partition("=")
        fields = [field.split("=") for field in request.params.get("fieldSelector", "").split(",") if field]

        def is_meant(raw: Document) -> bool:
            if label and raw["metadata"].get("labels", {}).get(label) != value:
                return False
            there = {"involvedObject.name": raw.get("involvedObject", {}).get("name"), "type": raw.get("type")}
            return all(there[key] == wanted for key, wanted in fields)

        items = [
            found.raw
            for (resource, namespace, _), found in self.objects.items()
            if (resource, namespace) == (request.resource, request.namespace)
            and not found.deleted
            and is_meant(found.raw)
        ]
        return aiohttp.web.json_response({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})

    async def _print(self, request: Any) -> aiohttp.web.StreamResponse:
        """All lines; to followers the last one when ``more`` is set. Line n was printed in second n // 2."""
        if request.name not in self.printed:
            raise kmock.KubernetesError(status=400, reason="BadRequest", message="container is waiting to start")
        printed = [
            (f"2026-11-26T10:00:{number // 2:02d}", f"{number % 2:09d}", line)
            for number, line in enumerate(self.printed[request.name])
        ]
        since = request.params.get("sinceTime", "")[:19]
        stamped = request.params.get("timestamps") == "true"
        lines = [f"{when}.{part}Z {line}" if stamped else line for when, part, line in printed if when >= since]
        response = aiohttp.web.StreamResponse()
        await response.prepare(request._raw_request)
        follows = request.params.get("follow") == "true"
        for line in lines[:-1] if follows else lines:
            await response.write(f"{line}\n".encode())
            if follows and request.name in self.breaks:
                self.breaks.remove(request.name)
                request._raw_request.transport.abort()
                return response
        if follows:
            await asyncio.get_running_loop().run_in_executor(None, self.more.wait, DEADLINE_SECONDS)
            await response.write(f"{lines[-1]}\n".encode())
        await response.write_eof()
        return response


@contextmanager
def api_server() -> Iterator[tuple[ApiServer, str]]:
    """And its address. It serves in a thread of its own, and is gone after the block."""
    ready: Future[tuple[ApiServer, str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        async with ApiServer() as handler, kmock.Server(handler) as server:
            ready.set_result((handler, str(server.url).rstrip("/"), asyncio.get_running_loop(), ended))
            await ended.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=work, name="api-server", daemon=True)
    thread.start()
    handler, address, loop, ended = ready.result(DEADLINE_SECONDS)
    try:
        yield handler, address
    finally:
        handler.more.set()
        loop.call_soon_threadsafe(ended.set)
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def add_claims(server: ApiServer, *names: str, namespace: str = "ml") -> None:
    """PersistentVolumeClaims that are there before a run is."""
    for name in names:
        server.add("v1/persistentvolumeclaims", {"metadata": {"name": name}}, namespace)


def write_kubeconfig(path: Path, address: str, *, namespace: str | None = "ml") -> Path:
    """Two contexts: ``here``, the current one, and ``there``, whose namespace is another one."""
    contexts = [
        {"name": "here", "context": {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}},
        {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}},
    ]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": contexts,
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
