"""Two hosts on one machine: network namespaces with names of their own, joined by a link that is slow and loses frames.

The link is a pair of TAP devices and a thread that carries Ethernet frames between them: it works on kernels that have
no netem, and can be cut without either side being told, as a switch that fails would.
"""

import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_TUNSETIFF = 0x400454CA
_IFF_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
FRAME_BYTES = 9000
DEVICE = "link0"


def missing() -> str:
    """Why there can be no two hosts here; "" when there can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("hostname", "hostname")):
        if shutil.which(program) is None:
            return f"needs {program} (package {package})"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return ""


class Link:
    """Carries frames both ways, each ``delay_seconds`` late, and forgets the share ``loss`` of them."""

    def __init__(self, ends: Sequence[int], *, delay_seconds: float, loss: float, seed: int) -> None:
        self._other = dict(zip(ends, reversed(ends), strict=True))
        self._delay = delay_seconds
        self._loss = loss
        self._draw = random.Random(seed)
        self._is_cut = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self.carried = self.lost = 0

    def cut(self) -> None:
        """From now on nothing arrives; neither host sees its device go down."""
        self._is_cut = True

    def mend(self) -> None:
        self._is_cut = False

    def __enter__(self) -> "Link":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _carry(self) -> None:
        under_way: deque[tuple[float, int, bytes]] = deque()
        while not self._closed.is_set():
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else 0.1
            for end in select.select(list(self._other), [], [], min(wait, 0.1))[0]:
                frame = os.read(end, FRAME_BYTES + 100)
                if self._is_cut or self._draw.random() < self._loss:
                    self.lost += 1
                else:
                    under_way.append((time.monotonic() + self._delay, self._other[end], frame))
            while under_way and under_way[0][0] <= time.monotonic():
                _, end, frame = under_way.popleft()
                os.write(end, frame)
                self.carried += 1


class Host:
    """A network namespace with one address; commands in it have the host's own name, which no resolver knows."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._namespace = f"pfc-{os.getpid()}-{name}"
        _ip("netns", "add", self._namespace)

    def plug_in(self, device: str) -> None:
        _ip("link", "set", device, "netns", self._namespace, "name", DEVICE)
        self._ip("link", "set", "lo", "up")
        self._ip("addr", "add", f"{self.address}/24", "dev", DEVICE)
        self._ip("link", "set", DEVICE, "mtu", str(FRAME_BYTES), "up")

    def command(self, words: Sequence[str]) -> list[str]:
        """``words``, run on this host; the process keeps its id through all of it."""
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', self.name, *words]
        return ["ip", "netns", "exec", self._namespace, "unshare", "--uts", *named]

    def remove(self) -> None:
        _ip("netns", "del", self._namespace)

    def _ip(self, *words: str) -> None:
        _ip("-n", self._namespace, *words)


@contextmanager
def two_hosts(*, delay_seconds: float, loss: float, seed: int = 1) -> Iterator[tuple[Host, Host, Link]]:
    """Everything is gone after the block."""
    hosts: list[Host] = []
    ends: list[int] = []
    try:
        for number in (1, 2):
            hosts.append(Host(f"host-{number}", f"10.77.0.{number}"))
            device = f"pfc{os.getpid() % 100_000}-{number}"
            end = os.open("/dev/net/tun", os.O_RDWR)
            ends.append(end)
            fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TAP_WITHOUT_HEADER))
            hosts[-1].plug_in(device)
        with Link(ends, delay_seconds=delay_seconds, loss=loss, seed=seed) as link:
            yield hosts[0], hosts[1], link
    finally:
        for end in ends:
            os.close(end)
        for host in hosts:
            host.remove()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
