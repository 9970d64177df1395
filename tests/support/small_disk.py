"""A file system of a few megabytes that can be filled to the last byte, or to the last file, and emptied again.

A tmpfs in a mount namespace of its own: nobody else sees it, and it is gone with the last process of the namespace.
"""

import os
import shutil
import subprocess
from pathlib import Path

PRIVATE = ["unshare", "--mount", "--propagation", "private"]
FILES = 400  # that fit


def missing() -> str:
    """Why this machine cannot have one; empty where it can."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "needs unshare and mount (util-linux)"
    probe = [*PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(probe, capture_output=True, timeout=20, check=False).returncode:
        return "needs the right to mount: root, or a container with CAP_SYS_ADMIN"
    return ""


class SmallDisk:
    """Mounted at ``place`` for this process and its children; call it under PRIVATE."""

    def __init__(self, place: Path, size: int) -> None:
        self.place = place
        place.mkdir(parents=True)
        options = f"size={size},nr_inodes={FILES}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, timeout=20)
        self._filler = place / "filler"
        self._filler.mkdir()

    def fill(self, leave: int = 0) -> None:
        """Take all room but ``leave`` bytes (to a page)."""
        found = os.statvfs(self.place)
        size = found.f_bavail * found.f_frsize - leave
        with (self._filler / "bytes").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def fill_with_files(self, leave: int) -> None:
        """Take the room of all files but ``leave`` new ones; what is there can still grow."""
        for number in range(os.statvfs(self.place).f_ffree - leave):
            (self._filler / str(number)).touch()

    def make_room(self) -> None:
        """Take nothing any more."""
        for path in self._filler.iterdir():
            path.unlink()
