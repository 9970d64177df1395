"""A real sshd on a port of its own, and an ssh that knows it and its keys."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import ROOT
from ports import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def missing() -> str:
    """Why there can be no server here; "" when there can."""
    if os.geteuid() != 0:
        return "needs root, for sshd"
    if SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "needs sshd (package openssh-server)"
    return ""


@contextmanager
def ssh_server(folder: Path, **settings: str) -> Iterator[str]:
    """The ssh command that reaches it under any host name; settings: variables that its sessions have."""
    assert SSHD is not None
    folder.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    for key in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(words, check=True, timeout=30)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    shown = " ".join(f'{key}="{value}"' for key, value in ({"PYTHONPATH": str(ROOT)} | settings).items())
    (folder / "sshd.conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile {folder}/sshd.pid\nSetEnv {shown}\n"
    )
    (folder / "ssh.conf").write_text(
        # ssh takes the first value that it finds.
        f"Host unreachable\n  Port 9\nHost *\n  HostName 127.0.0.1\n  Port {port}\n  User root\n"
        f"  IdentityFile {folder}/user\n  BatchMode yes\n"
        f"  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile {folder}/known\n  LogLevel ERROR\n"
    )
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd.conf")], stderr=log)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "sshd.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
        yield f"ssh -F {folder}/ssh.conf"
    finally:
        server.kill()
        server.wait(timeout=20)
