"""A Docker engine of a test's own: all that it keeps lies in one folder, and it leaves the host's network alone.

It makes no iptables rules. What it builds it builds in the host's network namespace, whose packages it needs; what it
runs it runs in a namespace of its own, where no rule of another engine keeps containers from each other, and no port is
taken. So it is started twice, on the same data.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from commands import ROOT, run, running

BASE = "pfc-test-base"
PROGRAMS = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "ip": "iproute2",
    "mount": "mount",
}
MIRROR = "http://deb.debian.org/debian"

# In mounts of its own: dockerd 20.10 does not take a mixed hierarchy of control groups, and writes into these.
START = """
mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified
for place in /etc/docker /run/containerd /opt; do
    mkdir -p "$place" "$0$place" && mount --bind "$0$place" "$place"
done
[ "$2" = host ] || ip link set lo up
exec dockerd --data-root "$0/data" --exec-root "$0/exec" --host "unix://$0/d.sock" --pidfile "$0/d.pid" \
    --storage-driver "$1" --bridge none --iptables=false --ip-masq=false --ip-forward=false \
    --default-ulimit nofile=20000:20000
"""

# In memory, and with what the official image tells dpkg and apt: packages need no sync to the disk, no manuals, no
# descriptions in other languages.
MAKE_BASE = """
mkdir "$0/root" && mount -t tmpfs tmpfs "$0/root"
debootstrap --variant=minbase bookworm "$0/root" "$2"
cd "$0/root"
echo force-unsafe-io > etc/dpkg/dpkg.cfg.d/docker-apt-speedup
printf 'path-exclude /usr/share/%s/*\\n' doc man locale > etc/dpkg/dpkg.cfg.d/docker
echo 'Acquire::Languages "none";' > etc/apt/apt.conf.d/docker-no-languages
echo 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' > etc/apt/apt.conf.d/docker-clean
rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc/* usr/share/man/* usr/share/locale/*
tar -cf "$1" .
"""


def missing() -> str:
    """Why there can be no engine here; "" when there may be."""
    if os.geteuid() != 0:
        return "needs root, for a Docker engine of its own"
    for program, package in PROGRAMS.items():
        if program == "docker-compose" and shutil.which("docker") and compose_command() != [program]:
            continue
        if shutil.which(program) is None:
            return f"needs {program} (package {package})"
    return ""


class CannotRunError(Exception):
    """This machine lets no engine run; what it said last."""


def storage_driver(folder: Path) -> str:
    """The best one that works here: vfs copies every layer, and works everywhere. Raises CannotRunError."""
    said = ""
    for driver in ("overlay2", "vfs"):
        try:
            with docker_engine(folder, driver, network="host"):
                return driver
        except CannotRunError as error:
            said = str(error)
    raise CannotRunError(said)


@contextmanager
def docker_engine(folder: Path, driver: str, *, network: Literal["host", "own"]) -> Iterator[str]:
    """An engine that is up; yields its DOCKER_HOST. Its containers and networks end with it, its images stay."""
    place = folder / driver
    place.mkdir(parents=True, exist_ok=True)
    host = f"unix://{place / 'd.sock'}"
    namespaces = ["--mount", "--propagation", "private", *(["--net"] if network == "own" else [])]
    command = ["unshare", *namespaces, "sh", "-c", START, str(place), driver, network]
    with running(command, cwd=place, printed=place / "log.txt") as process:
        if not _is_up(process, host):
            raise CannotRunError((place / "log.txt").read_text().strip().rpartition("\n")[2])
        try:
            yield host
        finally:
            _stop(process, host)


def compose_command() -> list[str]:
    """Docker's plugin, or the program that Debian has."""
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60, check=False)
    return ["docker", "compose"] if asked.returncode == 0 else ["docker-compose"]


def docker(*words: str | Path, host: str | None = None, cwd: Path | None = None, deadline_seconds: float = 60.0) -> str:
    """What the command prints on both outputs; it must succeed."""
    environment = dict(os.environ) | ({"DOCKER_HOST": host} if host else {}) | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", *map(str, words)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline_seconds,
        check=False,
    )
    assert done.returncode == 0, f"docker {' '.join(map(str, words))}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return (done.stdout + done.stderr).strip()


def import_base(folder: Path) -> None:
    """A Debian 12 as ``debian:bookworm-slim`` is, which cannot be fetched everywhere, as image ``BASE``."""
    packed = folder / "root.tar"
    # In mounts of its own: what debootstrap mounts below the root, /proc among it, ends with them, as the root does.
    command = ["unshare", "--mount", "sh", "-ec", MAKE_BASE, str(folder), str(packed), MIRROR]
    made = run(command, cwd=folder, deadline_seconds=300)
    assert made.code == 0, made.out[-2000:] + made.err[-2000:]
    docker("import", packed, BASE)
    packed.unlink()


def build_context(folder: Path) -> Path:
    """What a clone holds, and the wheels that the image needs, from wherever this machine's pip has them."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    assert listed.code == 0, listed.err
    for name in filter(None, listed.out.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    needed = run([sys.executable, "docker/requirements.py", "pyproject.toml", ""], cwd=folder)
    assert needed.code == 0, needed.err
    (folder / "requirements.txt").write_text(needed.out + "setuptools\n")
    options = ["--quiet", "--only-binary", ":all:", "--constraint", "constraints.txt", "--dest", "docker/wheels"]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", "requirements.txt"]
    fetched = run(command, cwd=folder, deadline_seconds=300)
    assert fetched.code == 0, fetched.err[-2000:]
    return folder


def build(context: Path, image: str, arguments: Mapping[str, str], *, file: str = "docker/Dockerfile") -> None:
    """``docker build`` by the engine's own builder."""
    pairs = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    options: Sequence[str] = ["--network", "host", "--file", file, *pairs, "--tag", image]
    docker("build", *options, ".", cwd=context, deadline_seconds=500)


def _is_up(process: "subprocess.Popen[str]", host: str) -> bool:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        asked = subprocess.run(["docker", "--host", host, "version"], capture_output=True, timeout=60, check=False)
        if asked.returncode == 0:
            return True
        time.sleep(0.2)
    return False


def _stop(process: "subprocess.Popen[str]", host: str) -> None:
    for kind, words in (("ps", ("rm", "--force")), ("network", ("network", "rm"))):
        listing = (
            ("ps", "--all", "--quiet") if kind == "ps" else ("network", "ls", "--quiet", "--filter", "type=custom")
        )
        if found := docker(*listing, host=host).split():
            docker(*words, *found, host=host)
    process.terminate()
    process.wait(timeout=60)
