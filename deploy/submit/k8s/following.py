"""What the nodes of a run print, while they print it: pod after pod, until the run is over."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy.submit.errors import SubmitError
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import RefusedError
from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.ownership import why_no_pods, workload
from deploy.submit.k8s.pods import container, index, newest, node_of, phase
from deploy.submit.k8s.standing import is_over, nodes, standing

POLL_SECONDS = 2.0  # between two looks at which pods there are
PATIENCE_SECONDS = 600.0  # with a cluster that does not answer any more
MOST_LINES = 1000  # that wait for whoever reads them


@dataclass
class _Reader:
    """Of one pod. last: time stamp of the newest line. is_reading: its thread is. is_whole: its log came to an end."""

    pod: str
    container: str
    prefix: str
    last: str = ""
    is_reading: bool = False
    is_whole: bool = False


class Following:
    """rank: only the node where it runs, None: all of them."""

    def __init__(self, cluster: Cluster, run: str, rank: int | None) -> None:
        self._cluster = cluster
        self._run = run
        self._rank = rank
        self._readers: dict[str, _Reader] = {}
        self._passed_over: set[str] = set()
        self._came: queue.Queue[str] = queue.Queue(MOST_LINES)
        self._told = ""
        self._refused: RefusedError | None = None

    def lines(self) -> Iterator[str]:
        """As they come. Between pods, ``-- waiting: ...`` tells what for; a link that is lost is taken up again."""
        found, pods = self._look()
        if found is None and not pods:
            raise SubmitError(
                f"no run {self._run} in namespace {self._cluster.namespace}: is it in another --namespace?"
            )
        if self._rank is not None and found and pods and (node := node_of(self._rank, pods[0])) >= nodes(found):
            raise SubmitError(f"rank {self._rank} would be on node {node}: there are nodes 0 to {nodes(found) - 1}")
        self._passed_over = {_name(pod) for pod in pods} - {_name(pod) for pod in newest(pods).values()}
        seen = time.monotonic()
        while True:
            self._read(pods, nodes(found) if found else len(newest(pods)))
            yield from self._waiting_for(found, pods)
            yield from self._lines_until(time.monotonic() + POLL_SECONDS)
            if self._refused is not None:
                raise self._refused
            if (found is None or is_over(found)) and not self._has_more():
                return
            try:
                found, pods = self._look()
                seen = time.monotonic()
            except SubmitError as error:
                if error.code != 1 or time.monotonic() > seen + PATIENCE_SECONDS:
                    raise

    def _look(self) -> tuple[Document | None, list[Document]]:
        """The workload first: pods that it has made meanwhile are seen, then."""
        found, _ = workload(self._cluster, self._run)
        return found, self._cluster.pods(self._run)

    def _read(self, pods: Sequence[Document], count: int) -> None:
        """Begin with new pods, and go on with those whose log broke off."""
        alive = {_name(pod): pod for pod in pods if phase(pod) != "Pending"}
        for name, pod in alive.items():
            if self._rank is not None and index(pod) != node_of(self._rank, pod):
                continue
            if name not in self._readers and name not in self._passed_over:
                prefix = f"{index(pod)}: " if self._rank is None and count > 1 else ""
                self._readers[name] = _Reader(name, container(pod)["name"], prefix)
        for name, reader in self._readers.items():
            if name not in alive:  # deleted, and its log with it
                reader.is_whole = True
            elif not reader.is_reading and (not reader.is_whole or phase(alive[name]) == "Running"):
                reader.is_reading = True
                # Nobody may be left to hear it, after Ctrl-C: it must not keep the process.
                threading.Thread(target=self._read_one, args=(reader,), name="pfc-log", daemon=True).start()

    def _read_one(self, reader: _Reader) -> None:
        reader.is_whole = False
        try:
            for stamp, line in self._cluster.follow(reader.pod, reader.container, reader.last or None):
                if stamp > reader.last:  # of the second in which it broke off, some came before
                    reader.last = stamp
                    self._came.put(reader.prefix + line)
            reader.is_whole = True
        except RefusedError as error:
            if error.status == 403:
                self._refused = error
            reader.is_whole = error.status == 404  # deleted; else it may not have begun yet
        except SubmitError:
            pass  # it does not answer: _look says so, if that lasts
        finally:
            reader.is_reading = False

    def _has_more(self) -> bool:
        # In this order: a reader that has ended adds nothing any more.
        return any(each.is_reading or not each.is_whole for each in self._readers.values()) or not self._came.empty()

    def _lines_until(self, end: float) -> Iterator[str]:
        while (seconds := end - time.monotonic()) > 0:
            try:
                yield self._came.get(timeout=seconds)
            except queue.Empty:
                return

    def _waiting_for(self, found: Document | None, pods: Sequence[Document]) -> Iterator[str]:
        status = None
        if found and not is_over(found):
            status = standing(found, pods, "" if pods else why_no_pods(self._cluster, found))
        told = f"-- {status.state}: {status.detail}" if status and status.state != "running" else ""
        if told and told != self._told:
            yield told
        self._told = told


def _name(pod: Document) -> str:
    return str(pod["metadata"]["name"])
