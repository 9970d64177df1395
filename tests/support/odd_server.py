"""A web server that answers as real ones do when they are not Prometheus, ill, or behind something."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

Answer = Callable[[BaseHTTPRequestHandler], None]


def says(content: bytes, *, status: int = 200, location: str | None = None) -> Answer:
    """One whole answer."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        if location is not None:
            request.send_header("Location", location)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def drips(end: Event) -> Answer:
    """An answer that never ends, a byte at a time."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not end.is_set():
                request.wfile.write(b" ")
                request.wfile.flush()
                time.sleep(0.02)
        except OSError:  # the client has had enough
            return

    return answer


def is_silent(end: Event) -> Answer:
    """A request is taken, and nothing comes back."""
    return lambda request: end.wait(60) and None


@contextmanager
def odd_server(answer: Answer, heard: list[BaseHTTPRequestHandler] | None = None) -> Iterator[str]:
    """Its address, without http://. heard: the requests that came."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if heard is not None:
                heard.append(self)
            answer(self)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
