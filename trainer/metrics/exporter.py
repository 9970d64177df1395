"""One exporter per rank: /metrics for Prometheus, /healthz for whoever keeps the run alive."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from trainer.errors import ConfigError
from trainer.metrics.health import Verdict
from trainer.metrics.labelled import labelled_registry

MOST_TRIES = 100
HIGHEST_PORT = 65535
REQUEST_SECONDS = 10.0  # a client that asks nothing does not keep a thread for longer

StartResponse = Callable[[str, list[tuple[str, str]]], object]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class _Silent(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not news."""


class _Server(ThreadingWSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Without asking name servers what this address is called: that may take half a minute."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def exporter(
    registry: CollectorRegistry,
    *,
    address: str,
    port: int | None,
    local_rank: int,
    labels: Mapping[str, str] | None = None,
    health: Callable[[], Verdict] | None = None,
    port_in_use: Literal["error", "next"] = "error",
    local_world_size: int = 1,
) -> Iterator[int | None]:
    """Serve ``registry`` with ``labels`` on ``port + local_rank`` within the block; yields the port, None without one.

    /healthz answers 200 or 503 and {"ready": ..., "text": ...}, as ``health`` says. port_in_use: "next" tries
    ``local_world_size`` ports further, and so on, so that another run's ranks on the machine find room, too.
    Raises ConfigError when no port can be opened.
    """
    if port is None:
        yield None
        return
    app = _app(registry, labels or {}, health or (lambda: Verdict(True, "")))
    server = _open(app, address, port, local_rank, port_in_use, local_world_size)
    ProcessCollector(registry=registry)
    thread = threading.Thread(target=server.serve_forever, name="pfc-exporter", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def _app(registry: CollectorRegistry, labels: Mapping[str, str], health: Callable[[], Verdict]) -> App:
    metrics: App = make_wsgi_app(labelled_registry(registry, labels) if labels else registry)

    def app(request: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = request.get("PATH_INFO", "/")
        if path == "/metrics":
            return metrics(request, start_response)
        if path == "/healthz":
            verdict = health()
            status = "200 OK" if verdict.is_ready else "503 Service Unavailable"
            body = json.dumps({"ready": verdict.is_ready, "text": verdict.text} | dict(labels)) + "\n"
            start_response(status, [("Content-Type", "application/json")])
            return [body.encode()]
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"there are /metrics and /healthz\n"]

    return app


def _open(app: App, address: str, port: int, local_rank: int, port_in_use: str, local_world_size: int) -> WSGIServer:
    wanted = port + local_rank
    tries = MOST_TRIES if port_in_use == "next" else 1
    last = OSError(0, "no port left")
    for number in range(tries):
        candidate = wanted + number * max(1, local_world_size)
        if candidate > HIGHEST_PORT:
            break
        try:
            kind = _Server6 if ":" in address else _Server
            return make_server(address, candidate, app, kind, handler_class=_Silent)
        except OSError as error:
            last = error
    what = f"{address}:{wanted} cannot be opened ({last.strerror or last})"
    if tries > 1:
        what = f"no port of {address} from {wanted} on can be opened ({last.strerror or last})"
    raise ConfigError(
        f"metrics.port {port} + local rank {local_rank}: {what}; choose another metrics.port"
        + ("" if tries > 1 else ", or metrics.port_in_use = 'next'")
    )
