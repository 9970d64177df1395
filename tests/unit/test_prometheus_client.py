"""Asking Prometheus: what comes back, what goes wrong, and that no error tells a password."""

import base64
import json
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from threading import Event

import numpy as np
import pytest
from odd_server import Answer, drips, is_silent, odd_server, says

from trainer.dashboards.prometheus import PrometheusClient, QueryRefusedError
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

SECRET = "s3cret"


def answer_of(data: object) -> Answer:
    return says(json.dumps({"status": "success", "data": data}).encode())


def matrix(*series: dict[str, object]) -> Answer:
    return answer_of({"resultType": "matrix", "result": list(series)})


def test_series_over_time() -> None:
    heard: list[BaseHTTPRequestHandler] = []
    values = [[1.5, "2"], [2.5, "NaN"], [3.5, "+Inf"], [4.5, "-1e-3"]]
    with odd_server(matrix({"metric": {"job": "a"}, "values": values}), heard) as address:
        client = PrometheusClient(f"http://{address}/behind/a/proxy/")
        (series,) = client.over_time('x{a="&b"}', start=1.5, end=4.5, step=1)
    assert heard[0].path == "/behind/a/proxy/api/v1/query_range?query=x%7Ba%3D%22%26b%22%7D&start=1.5&end=4.5&step=1"
    assert series.labels == {"job": "a"}
    np.testing.assert_array_equal(series.times, [1.5, 2.5, 3.5, 4.5])
    np.testing.assert_array_equal(series.values, [2, np.nan, np.inf, -1e-3])
    assert "Authorization" not in heard[0].headers


def test_one_moment() -> None:
    with odd_server(answer_of({"resultType": "vector", "result": [{"metric": {}, "value": [1, "2"]}]})) as address:
        assert PrometheusClient(f"http://{address}").at("x", 1)[0].values.tolist() == [2]
    with odd_server(answer_of({"resultType": "scalar", "result": [1, "3"]})) as address:
        assert PrometheusClient(f"http://{address}").at("3", 1)[0].values.tolist() == [3]


def test_user_and_password_go_into_a_header_and_nowhere_else() -> None:
    heard: list[BaseHTTPRequestHandler] = []
    with odd_server(answer_of(["b", "a"]), heard) as address:
        client = PrometheusClient(f"http://us%40er:{SECRET}%2F@{address}")
        assert client.label_values("job", "pfc_step", start=1.0) == ["a", "b"]
    assert client.address == f"http://{address}"
    assert SECRET not in heard[0].path
    kind, _, encoded = heard[0].headers["Authorization"].partition(" ")
    assert (kind, base64.b64decode(encoded)) == ("Basic", f"us@er:{SECRET}/".encode())


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd", f"ftp://user:{SECRET}@host/", "prometheus:9090", "", "http://", f"http://:{SECRET}@",
        f"http://user:{SECRET}@host:port", "http://[::1", f"http://host/?token={SECRET}", f"http://host/#{SECRET}",
    ],
)  # fmt: skip
def test_only_addresses_of_web_servers(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^--prometheus: ") as told:
        PrometheusClient(address)
    assert_silent_about_the_password(told.value)


@pytest.mark.parametrize("host", ["host name", "host\nname", "a..b", "x" * 300, "bü\u0000cher"])
def test_hosts_that_cannot_be(host: str) -> None:
    with pytest.raises(ConfigError) as told:
        PrometheusClient(f"http://user:{SECRET}@{host}:1/").at("x", 1)
    assert_silent_about_the_password(told.value)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (says(b"<html>hello</html>"), "answers, but not as a Prometheus server does"),
        (says(b"[" * 100_000), "answers, but not as"),
        (says(b'"success"'), "answers, but not as"),
        (says(b'{"status": "success"}'), "answers, but not as"),
        (says(b"not here", status=404), "answers 404 Not Found, but not as"),
        (says(b"", status=401), r"refuses \(401 Unauthorized\); give http\(s\)://USER:PASSWORD@HOST"),
        (says(b"", status=302, location="http://elsewhere/login"), "redirects to another address"),
        (says(b"down", status=502), "fails: 502 Bad Gateway"),
        (says(b'{"errorType": "timeout", "error": "query timed out"}', status=503), "fails: timeout: query timed out"),
        (answer_of({"resultType": "streams", "result": []}), "answers, but not as"),
        (answer_of({"resultType": "matrix", "result": [{"metric": {}, "values": [[1]]}]}), "answers, but not as"),
        (answer_of({"resultType": "matrix", "result": [{"values": [[1, "2"]]}]}), "answers, but not as"),
        (answer_of([]), "answers, but not as"),
        (lambda request: request.wfile.write(b"220 mail ready\r\n") and None, "answers, but not as"),
        (lambda request: None, "cannot be reached|answers, but not as"),
    ],
)
def test_what_answers_is_no_prometheus(answer: Answer, problem: str) -> None:
    with odd_server(answer) as address:
        client = PrometheusClient(f"http://user:{SECRET}@{address}")
        with pytest.raises(ConfigError, match=rf"^http://{address} ({problem})") as told:
            client.over_time("x", start=1, end=2, step=1)
    assert_silent_about_the_password(told.value)


def test_a_refused_expression_is_no_broken_server() -> None:
    refusal = b'{"status": "error", "errorType": "bad_data", "error": "parse error:\\n unclosed"}'
    with (
        odd_server(says(refusal, status=400)) as address,
        pytest.raises(QueryRefusedError, match=r"^parse error: unclosed$"),
    ):
        PrometheusClient(f"http://{address}").at("x(", 1)


@pytest.mark.parametrize("kind", [is_silent, drips])
def test_no_answer_is_waited_for_without_end(kind: Callable[[Event], Answer]) -> None:
    end = Event()
    with odd_server(kind(end)) as address:
        try:
            with pytest.raises(ConfigError, match=r"does not answer within 0.3 s; is it the right address\?$"):
                PrometheusClient(f"http://{address}", timeout_seconds=0.3).at("x", 1)
        finally:
            end.set()


def assert_silent_about_the_password(error: BaseException) -> None:
    assert SECRET not in "".join(traceback.format_exception_only(error))
    assert "\n" not in str(error)
