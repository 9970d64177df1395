"""What the nodes of a run on Kubernetes print: so far, and pod after pod until the run is over."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_jobs import full
from kubernetes_pods import pod

from deploy.submit.errors import SubmitError
from deploy.submit.k8s import following
from deploy.submit.k8s.options import Options
from deploy.submit.kubernetes import KubernetesTarget

pytest.importorskip("kubernetes", reason="needs the Kubernetes client: make venv installs it")
pytest.importorskip("kmock", reason="needs kmock: make venv installs it")

from api_server import ApiServer, add_claims, api_server, write_kubeconfig

pytestmark = pytest.mark.integration

JOBS = "batch/v1/jobs"
DEADLINE_SECONDS = 30.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    with api_server() as (server, address):
        add_claims(server, "face-data", "runs")
        server.address = address
        yield server


@pytest.fixture
def target(server: ApiServer, tmp_path: Path) -> KubernetesTarget:
    return KubernetesTarget(Options(kubeconfig=write_kubeconfig(tmp_path / "kubeconfig", server.address)))


def over(server: ApiServer, kind: str = "Complete") -> None:
    server.report(JOBS, "faces", {"conditions": [{"type": kind, "status": "True"}]})


class Listener:
    """Somebody who follows, while the test goes on."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.heard: list[str] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, args=(lines,), daemon=True)
        self._thread.start()

    def _listen(self, lines: Iterator[str]) -> None:
        try:
            self.heard.extend(iter(lines))
        except BaseException as error:
            self.error = error

    def until(self, condition: Callable[[list[str]], bool]) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while not condition(self.heard):
            assert time.monotonic() < end, (self.heard, self.error)
            time.sleep(0.01)

    def to_the_end(self) -> list[str]:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), self.heard
        if self.error is not None:
            raise self.error
        return self.heard


def test_printed_so_far(server: ApiServer, target: KubernetesTarget) -> None:
    with pytest.raises(SubmitError, match="run faces has no pods in namespace ml"):
        list(target.logs("faces"))
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    server.add("v1/pods", pod("faces-1-a", 1, "Pending", containerStatuses=[creating]))
    with pytest.raises(SubmitError, match="faces-1-a has printed nothing yet: ContainerCreating"):
        list(target.logs("faces"))
    server.add("v1/pods", pod("faces-0-a", 0, "Running"))
    server.printed = {"faces-0-a": ["step 1", "ünïcode"], "faces-1-a": ["other"]}
    assert list(target.logs("faces")) == ["step 1", "ünïcode"]
    server.report("v1/pods", "faces-1-a", {"phase": "Running"})
    assert list(target.logs("faces")) == ["0: step 1", "0: ünïcode", "1: other"]
    assert list(target.logs("faces", rank=3)) == ["other"], "two ranks a node"
    with pytest.raises(SubmitError, match="rank 4 would be on node 2, which has no pod: there are nodes 0 to 1"):
        list(target.logs("faces", rank=4))


def test_followed_through_a_restart_to_the_end(server: ApiServer, target: KubernetesTarget) -> None:
    """From before the first pod: one fails, each index gets a new one, one of which is replaced once more."""
    target.submit(full(nodes=2))
    listener = Listener(target.logs("faces", follow=True))
    listener.until(lambda heard: heard == ["-- waiting: 0 of 2 nodes up; no pod yet for the others"])
    server.more.set()
    for node in (0, 1):
        server.printed[f"faces-{node}-a"] = ["begins", "fails"]
        server.add("v1/pods", pod(f"faces-{node}-a", node, "Running"))
    listener.until(lambda heard: {"0: fails", "1: fails"} <= set(heard))
    for node in (0, 1):
        ended = {"containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}], "phase": "Failed"}
        server.report("v1/pods", f"faces-{node}-a", ended)
    listener.until(lambda heard: heard[-1] == "-- waiting: 0 of 2 nodes up; exit codes [1, 1], to be started again")
    for node in (0, 1):
        server.printed[f"faces-{node}-b"] = ["again", "ends"]
        server.add("v1/pods", pod(f"faces-{node}-b", node, "Running", created="11:00:00"))
    listener.until(lambda heard: {"0: ends", "1: ends"} <= set(heard))
    for node in (0, 1):
        server.report("v1/pods", f"faces-{node}-b", {"phase": "Succeeded"})
    over(server)
    heard = listener.to_the_end()
    assert [line for line in heard if line.startswith("1: ")] == ["1: begins", "1: fails", "1: again", "1: ends"]
    assert [line for line in heard if line.startswith("0: ")] == ["0: begins", "0: fails", "0: again", "0: ends"]


def test_lines_come_while_others_are_still_printing(server: ApiServer, target: KubernetesTarget) -> None:
    target.submit(full(nodes=2))
    for node in (0, 1):
        server.add("v1/pods", pod(f"faces-{node}-0", node, "Failed", created="09:00:00"))
        server.add("v1/pods", pod(f"faces-{node}-a", node, "Running"))
        server.printed[f"faces-{node}-a"] = ["begins", "ends"]
    listener = Listener(target.logs("faces", follow=True))
    listener.until(lambda heard: sorted(heard) == ["0: begins", "1: begins"])
    server.more.set()
    listener.until(lambda heard: sorted(heard) == ["0: begins", "0: ends", "1: begins", "1: ends"])
    over(server, "Failed")
    assert len(listener.to_the_end()) == 4
    assert list(target.logs("faces", follow=True, rank=2)) == ["begins", "ends"], "of node 1, which has no prefix then"
    with pytest.raises(SubmitError, match="rank 4 would be on node 2: there are nodes 0 to 1"):
        next(target.logs("faces", follow=True, rank=4))


def test_a_log_that_breaks_off_is_taken_up_where_it_did(server: ApiServer, target: KubernetesTarget) -> None:
    target.submit(full(nodes=1))
    server.more.set()
    server.add("v1/pods", pod("faces-0-a", 0, "Running"))
    server.printed["faces-0-a"] = [f"line {number}" for number in range(7)]
    server.breaks = {"faces-0-a"}
    listener = Listener(target.logs("faces", follow=True))
    listener.until(lambda heard: "line 6" in heard)
    assert not server.breaks
    server.report("v1/pods", "faces-0-a", {"phase": "Succeeded"})
    over(server)
    assert listener.to_the_end() == [f"line {number}" for number in range(7)], "each once, and in order"


def test_a_cluster_that_answers_again_in_time(
    server: ApiServer, target: KubernetesTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.submit(full(nodes=1))
    server.more.set()
    server.add("v1/pods", pod("faces-0-a", 0, "Running"))
    server.printed["faces-0-a"] = ["one", "two"]
    listener = Listener(target.logs("faces", follow=True))
    listener.until(lambda heard: heard == ["one", "two"])
    server.said.clear()
    server.refusals = {"fetch jobs": (500, "etcd has no leader")}
    listener.until(lambda heard: server.said.count("fetch jobs") > 2)
    server.refusals = {}
    over(server)
    server.report("v1/pods", "faces-0-a", {"phase": "Succeeded"})
    assert listener.to_the_end() == ["one", "two"]
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.0)
    server.report(JOBS, "faces", {"conditions": []})
    listener = Listener(target.logs("faces", follow=True))
    listener.until(lambda heard: "two" in heard)
    server.refusals = {"fetch jobs": (500, "etcd has no leader")}
    with pytest.raises(SubmitError, match="etcd has no leader"):
        listener.to_the_end()


def test_a_run_that_is_cancelled_is_followed_until_it_is_gone(server: ApiServer, target: KubernetesTarget) -> None:
    target.submit(full(nodes=1))
    server.add("v1/pods", pod("faces-0-a", 0, "Running"))
    server.printed["faces-0-a"] = ["a step", "a checkpoint"]
    listener = Listener(target.logs("faces", follow=True))
    listener.until(lambda heard: heard == ["a step"])
    target.cancel("faces")
    listener.until(lambda heard: heard[-1] == "-- cancelled: 1 of 1 node still to write a checkpoint and end")
    server.more.set()
    listener.until(lambda heard: "a checkpoint" in heard)
    server.finish("v1/pods", "faces-0-a")
    server.finish(JOBS, "faces")
    assert [line for line in listener.to_the_end() if not line.startswith("--")] == ["a step", "a checkpoint"]
    with pytest.raises(SubmitError, match="no run faces in namespace ml"):
        next(target.logs("faces", follow=True))


def test_logs_that_one_may_not_read(server: ApiServer, target: KubernetesTarget) -> None:
    target.submit(full(nodes=1))
    server.add("v1/pods", pod("faces-0-a", 0, "Succeeded"))
    server.printed["faces-0-a"] = ["secret", "secret"]
    server.refusals = {"fetch pods/log": (403, "User cannot get pods/log")}
    over(server)
    with pytest.raises(SubmitError, match="not allowed to read the log of Pod faces-0-a in namespace ml: User cannot"):
        list(target.logs("faces"))
    with pytest.raises(SubmitError, match="not allowed to read the log of Pod faces-0-a in namespace ml: User cannot"):
        list(target.logs("faces", follow=True))


def test_why_there_are_no_pods(server: ApiServer, target: KubernetesTarget) -> None:
    """A quota, or an admission that refuses the pods and not the Job, is told by events alone."""
    target.submit(full())
    lines: Any = target.logs("faces", follow=True)
    for number, (kind, about, text) in enumerate(
        [("Warning", "faces", "older"), ("Warning", "faces", "exceeded\nquota: gpus"), ("Normal", "faces", "newest")]
    ):
        event = {"metadata": {"name": f"event-{number}"}, "type": kind, "message": text}
        event |= {"involvedObject": {"name": about}, "lastTimestamp": f"2026-11-26T10:00:{number:02d}Z"}
        server.add("v1/events", event)
    assert target.status("faces").detail == "no pod can be made: exceeded quota: gpus"
    assert next(lines) == "-- waiting: no pod can be made: exceeded quota: gpus"
    server.refusals = {"list events": (403, "no")}
    assert target.status("faces").detail == "0 of 3 nodes up; no pod yet for the others"
