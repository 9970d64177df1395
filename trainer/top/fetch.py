"""One metrics endpoint asked once, within a deadline and a size, whatever is at the other end.

HTTP/1.0 over a bare connection: the answer ends with the connection and comes in one piece, and cancelling at the
deadline works in every stage, also against a server that sends a byte a second.
"""

import asyncio
import socket

from trainer.top.endpoints import Endpoint

LIMIT_BYTES = 4 << 20  # a rank's metrics take about 30 kB


class EndpointError(Exception):
    """Why an endpoint gave no metrics, in a few words."""


async def fetch(endpoint: Endpoint, *, timeout_seconds: float, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """The body of ``/metrics``. Raises EndpointError."""
    try:
        async with asyncio.timeout(timeout_seconds):
            head, body = await _get(endpoint, limit_bytes)
    except TimeoutError:
        raise EndpointError(f"no answer within {timeout_seconds:g} s") from None
    except socket.gaierror:
        raise EndpointError("unknown host") from None
    except ConnectionRefusedError:
        raise EndpointError("connection refused") from None
    except (OSError, UnicodeError) as error:
        raise EndpointError(getattr(error, "strerror", None) or "cannot be reached") from None
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if not status[0].startswith(b"HTTP/") or len(status) < 2:
        raise EndpointError("does not speak HTTP")
    if status[1] != b"200":
        raise EndpointError(f"answers {status[1][:3].decode('ascii', 'replace')} to /metrics")
    return body


async def _get(endpoint: Endpoint, limit_bytes: int) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        request = f"GET /metrics HTTP/1.0\r\nHost: {endpoint}\r\nAccept: text/plain; version=0.0.4\r\n\r\n"
        writer.write(request.encode("ascii"))
        content = bytearray()
        while piece := await reader.read(1 << 16):
            content += piece
            if len(content) > limit_bytes:
                raise EndpointError(f"more than {limit_bytes >> 20} MiB of answer")
        head, _, body = bytes(content).partition(b"\r\n\r\n")
        return head, body
    finally:
        writer.transport.abort()
