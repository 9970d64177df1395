"""``pfc top`` against live endpoints: ranks, machines that are silent, and servers that mean harm."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from commands import pfc, run
from prometheus_server import free_ports
from rank_exporter import RankMetrics, served

from trainer.top.endpoints import Endpoint, Machine, Sources
from trainer.top.fetch import LIMIT_BYTES, EndpointError, fetch
from trainer.top.poll import Answer, Poller

pytestmark = pytest.mark.integration

HERE = "127.0.0.1"
OK = b"HTTP/1.0 200 OK\r\n\r\n"


def poll(port: int, job: str | None = None) -> list[Answer]:
    return asyncio.run(Poller(Sources((Machine(Endpoint(HERE, port), job),)), timeout_seconds=10.0).poll())


def ports(answers: list[Answer]) -> list[tuple[int, bool]]:
    return [(answer.endpoint.port, answer.reading is not None) for answer in answers]


@contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """Accepts connections until the block ends; ``behave`` has each of them."""
    with closing(socket.create_server((HERE, 0))) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=treat, args=(connection,), daemon=True).start()

        def treat(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                # The whole question first: closed with some of it unread, a connection is reset.
                asked = b""
                while not asked.endswith(b"\r\n\r\n"):
                    asked += connection.recv(1 << 16)
                behave(connection)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield Endpoint(HERE, listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"H")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"pfc_step 1\n" * 10_000)


def silent(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


@pytest.mark.parametrize(
    ("behave", "problem"),
    [
        (drip, "no answer within 1 s"),
        (silent, "no answer within 1 s"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), "does not speak HTTP"),
        (lambda connection: connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n"), "answers 404"),
    ],
)
def test_a_server_that_gives_no_metrics(behave: Callable[[socket.socket], None], problem: str) -> None:
    with server(behave) as endpoint, pytest.raises(EndpointError, match=problem):
        asyncio.run(asyncio.wait_for(fetch(endpoint, timeout_seconds=1.0), 60))


def test_an_endless_answer_is_cut() -> None:
    with server(endless) as endpoint, pytest.raises(EndpointError, match="more than 4 MiB of answer"):
        asyncio.run(asyncio.wait_for(fetch(endpoint, timeout_seconds=60.0), 100))
    assert LIMIT_BYTES == 4 << 20


def test_a_whole_answer_of_any_size_below_the_limit() -> None:
    body = b"pfc_step 1\n" * (LIMIT_BYTES // 20)
    with server(lambda connection: connection.sendall(OK + body)) as endpoint:
        assert asyncio.run(fetch(endpoint, timeout_seconds=60.0)) == body


def test_nobody_and_no_such_host() -> None:
    with pytest.raises(EndpointError, match="connection refused"):
        asyncio.run(fetch(Endpoint(HERE, free_ports(1)), timeout_seconds=10.0))
    with pytest.raises(EndpointError, match="unknown host"):
        asyncio.run(fetch(Endpoint("no-such-host.invalid", 80), timeout_seconds=60.0))


def test_ranks_of_a_machine_are_found_from_its_first_port() -> None:
    base = free_ports(20)
    ranks = {base + rank: RankMetrics(rank=rank, steps=1) for rank in range(18)}
    del ranks[base + 5]  # killed
    with served(ranks):
        answers = poll(base)
    assert ports(answers) == [(base + rank, rank != 5) for rank in range(18)]
    assert [answer.reading.rank for answer in answers if answer.reading] == [r for r in range(18) if r != 5]


def test_another_jobs_ranks_are_not_taken_for_this_ones() -> None:
    base = free_ports(4)
    ours = {base + rank: RankMetrics(job="ours", rank=rank) for rank in range(2)}
    theirs = {base + 2 + rank: RankMetrics(job="theirs", rank=rank) for rank in range(2)}
    with served(ours | theirs):
        assert ports(poll(base)) == [(base, True), (base + 1, True)]
        assert ports(poll(base + 2)) == [(base + 2, True), (base + 3, True)]
        assert ports(poll(base, "theirs")) == [(base + 2, True), (base + 3, True)]
        (nobody,) = poll(base, "nobody's")
        assert (nobody.reading, nobody.problem) == (None, "a rank of another run, ours, answers")


def test_a_rank_that_comes_later_joins_and_one_that_goes_stays_as_gone() -> None:
    base = free_ports(3)

    async def polls() -> list[list[tuple[int, bool]]]:
        poller = Poller(Sources((Machine(Endpoint(HERE, base)),)), timeout_seconds=10.0)
        with served({base: RankMetrics(rank=0)}):
            found = [ports(await poller.poll())]
            with served({base + 1: RankMetrics(rank=1)}):
                found.append(ports(await poller.poll()))
        return [*found, ports(await poller.poll())]

    assert asyncio.run(polls()) == [
        [(base, True)],
        [(base, True), (base + 1, True)],
        [(base, False), (base + 1, False)],
    ]


def test_targets_are_read_again_and_survive_a_torn_file(tmp_path: Path) -> None:
    base, path = free_ports(2), tmp_path / "targets.json"

    async def polls() -> list[list[tuple[int, bool]]]:
        poller = Poller(Sources((), path), timeout_seconds=10.0)
        found = []
        for content in (
            json.dumps([{"targets": [f"{HERE}:{base}"]}]),
            json.dumps([{"targets": [f"{HERE}:{base}", f"{HERE}:{base + 1}"]}]),
            "[{",
        ):
            path.write_text(content)
            found.append(ports(await poller.poll()))
        return found

    with served({base: RankMetrics()}):
        both = [(base, True), (base + 1, False)]
        assert asyncio.run(polls()) == [both[:1], both, both]


def test_silent_servers_do_not_hide_the_others(tmp_path: Path) -> None:
    """All are asked at once: one after the other, those that never answer would take longer than the deadline."""
    base, targets = free_ports(1), tmp_path / "targets.json"
    with ExitStack() as servers, served({base: RankMetrics(job="alive", steps=3)}):
        hanging = [servers.enter_context(server(silent)) for _ in range(70)]
        targets.write_text(json.dumps([{"targets": [*map(str, hanging), f"{HERE}:{base}"]}]))
        shown = run(pfc("top", "--targets", targets, "--once"), cwd=tmp_path, deadline_seconds=120)
    assert shown.code == 0, shown.err
    assert "alive  [1 up, 70 gone]" in shown.out
    assert "no answer within 2 s" in shown.out
    assert "and 62 more do not answer" in shown.out


def test_nothing_answers(tmp_path: Path) -> None:
    base = free_ports(20)
    failed = run(pfc("top", f"{HERE}:{base}", "--once"), cwd=tmp_path)
    assert (failed.code, failed.out) == (2, "")
    (line,) = failed.error_lines
    assert f"no rank answers on {HERE}:{base} and the 15 ports after it (connection refused)" in line
    assert "is the run started" in line
    for arguments, message in {
        (): "say what to watch",
        ("run.toml",): "run.toml: neither a run's configuration nor HOST:PORT",
        (f"{HERE}:{base}", "--interval", "0"): "--interval 0: give seconds",
    }.items():
        refused = run(pfc("top", *arguments), cwd=tmp_path)
        assert refused.code == 2
        assert message in refused.error_lines[0]
