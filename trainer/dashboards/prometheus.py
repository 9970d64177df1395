"""Questions to a Prometheus server, or to anything that speaks its HTTP interface.

P: points of a series.
"""

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ConfigError

TIMEOUT_SECONDS = 30.0
_LARGEST_ANSWER = 256 << 20
_CHUNK = 1 << 16

Parameters = Mapping[str, str | float]


@dataclass(frozen=True)
class Series:
    """One series of an answer. times: [P] seconds since 1970; values: [P], which may be NaN or infinite."""

    labels: dict[str, str]
    times: NDArray[np.float64]
    values: NDArray[np.float64]


class QueryRefusedError(ValueError):
    """The server cannot compute this one expression, and says why; others may be fine."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect leads to a login page, or takes the password to another machine."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class PrometheusClient:
    """A server at ``address``: http or https, a path where it lies behind a proxy, ``user:password@`` where it asks.

    Raises ConfigError, without the password in it, for an address that cannot be used, no answer within
    ``timeout_seconds``, or an answer that is not Prometheus's.
    """

    def __init__(self, address: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        try:
            parts = urllib.parse.urlsplit(address.strip())
            port = parts.port
        except ValueError:
            raise ConfigError("--prometheus: not an address; give one such as http://prometheus:9090") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "--prometheus: only http:// and https:// addresses; give one such as http://prometheus:9090"
            )
        if parts.query or parts.fragment:
            raise ConfigError("--prometheus: give the server's address alone, without what follows ? or #")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.address = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
        self._headers = {"Accept": "application/json"}
        if parts.username is not None:
            user, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._timeout = timeout_seconds

    def over_time(self, expression: str, *, start: float, end: float, step: float) -> list[Series]:
        """Its values from ``start`` to ``end`` (seconds since 1970), every ``step`` seconds.

        Raises QueryRefusedError for an expression that the server cannot compute.
        """
        data = self._ask("query_range", {"query": expression, "start": start, "end": end, "step": step})
        return self._series(data, ("matrix",))

    def at(self, expression: str, moment: float) -> list[Series]:
        """Its value at one moment; of ``metric[5m]`` the raw samples. Raises as ``over_time``."""
        return self._series(self._ask("query", {"query": expression, "time": moment}), ("vector", "matrix", "scalar"))

    def label_values(self, label: str, selector: str, **within: float) -> list[str]:
        """Values of a label of the series that ``selector`` names, sorted; ``start`` and ``end`` narrow the search."""
        data = self._ask(f"label/{urllib.parse.quote(label, safe='')}/values", {"match[]": selector, **within})
        if not isinstance(data, list):
            raise self._stranger()
        return sorted(map(str, data))

    def _series(self, data: Any, kinds: tuple[str, ...]) -> list[Series]:
        try:
            kind, result = data["resultType"], data["result"]
            if kind not in kinds:
                raise self._stranger()
            if kind == "scalar":
                result = [{"metric": {}, "value": result}]
            found = []
            for each in result:
                points = each["values"] if "values" in each else [each["value"]] if "value" in each else []
                table = np.array([(float(moment), float(value)) for moment, value in points]).reshape(-1, 2)
                found.append(Series({str(k): str(v) for k, v in each["metric"].items()}, table[:, 0], table[:, 1]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise error if isinstance(error, ConfigError) else self._stranger() from None
        return found

    def _ask(self, path: str, parameters: Parameters) -> Any:
        """The ``data`` of an answer."""
        try:
            request = urllib.request.Request(
                f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", headers=self._headers
            )
            with self._opener.open(request, timeout=self._timeout) as answer:
                content = self._read(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise self._refused(refusal) from None
        except urllib.error.URLError as error:
            raise self._unreachable(error.reason) from None
        except http.client.InvalidURL:
            raise ConfigError("--prometheus: not an address; give one such as http://prometheus:9090") from None
        except http.client.HTTPException:
            raise self._stranger() from None
        except (OSError, UnicodeError) as error:
            raise self._unreachable(error) from None
        try:
            said = json.loads(content)
        except (ValueError, RecursionError):
            raise self._stranger() from None
        if not isinstance(said, dict) or said.get("status") != "success" or "data" not in said:
            raise self._stranger()
        return said["data"]

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        end, found = time.monotonic() + self._timeout, bytearray()
        while chunk := answer.read1(_CHUNK):
            found += chunk
            if time.monotonic() > end:
                raise TimeoutError
            if len(found) > _LARGEST_ANSWER:
                raise ConfigError(f"{self.address}: an answer is longer than {_LARGEST_ANSWER >> 20} MiB; ask for less")
        return bytes(found)

    def _refused(self, refusal: urllib.error.HTTPError) -> ValueError:
        status = f"{refusal.code} {refusal.reason}"
        if 300 <= refusal.code < 400:
            return ConfigError(f"{self.address} redirects to another address ({status}); name the server itself")
        if refusal.code in (401, 403):
            return ConfigError(f"{self.address} refuses ({status}); give http(s)://USER:PASSWORD@HOST")
        try:
            said = json.loads(refusal.read(_CHUNK))
            kind, reason = str(said["errorType"]), " ".join(str(said["error"]).split())
        except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            return self._stranger(status) if refusal.code < 500 else ConfigError(f"{self.address} fails: {status}")
        if kind in ("bad_data", "execution"):
            return QueryRefusedError(reason)
        return ConfigError(f"{self.address} fails: {kind}: {reason}")

    def _unreachable(self, reason: object) -> ConfigError:
        if isinstance(reason, TimeoutError):
            return ConfigError(f"{self.address} does not answer within {self._timeout:g} s; is it the right address?")
        said = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
        return ConfigError(f"{self.address} cannot be reached ({said}); is the server up, and this its address?")

    def _stranger(self, status: str = "") -> ConfigError:
        return ConfigError(
            f"{self.address} answers{f' {status}' if status else ''}, but not as a Prometheus server does; "
            "give the address whose /api/v1/query answers"
        )
