"""The folder of a checkpoint: a draft under a hidden name while it is written, published by one rename.

checkpoints/.step_00000100.draft/   while it is written
checkpoints/step_00000100/          afterwards
checkpoints/.step_00000050.old/     while it is deleted
checkpoints/damaged_step_00000090/  found damaged by a run that went on from the one before; until the next is whole
"""

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.checkpoint.folders import FOLDER, folder_name
from trainer.checkpoint.storage import file_lengths

DRAFT, OLD = ".draft", ".old"
DAMAGED = "damaged_"


class Draft:
    """A checkpoint of ``run_folder`` that is being written; any rank may make the folder, rank 0 ends it."""

    def __init__(self, run_folder: Path, step: int) -> None:
        self.parent = run_folder / FOLDER
        self.final = self.parent / folder_name(step)
        self.folder = self.parent / f".{self.final.name}{DRAFT}"

    def make(self) -> None:
        """Make the folder if another rank has not. Raises OSError, also where the run's own folder is gone."""
        # Not parents=True: a run whose folder was deleted would leave one that no run recognises.
        self.parent.mkdir(exist_ok=True)
        self.folder.mkdir(exist_ok=True)

    def expect(self, index: Mapping[str, Any]) -> None:
        """Make sure that all files are there and as long as ``index`` says. Raises OSError.

        They are not where the ranks' machines have folders of the same name, but not the same folder.
        """
        chunks = (chunk for entry in index.values() for chunk in entry["chunks"])
        ends = ((chunk["file"], chunk["begin"] + chunk["size"]) for chunk in chunks)
        for name, length in file_lengths(ends).items():
            path = self.folder / name
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                text = (
                    "not there, although its rank has written it: run.output must be a folder that all machines share"
                )
                raise FileNotFoundError(errno.ENOENT, text, str(path)) from None
            if found != length:
                raise OSError(errno.EIO, f"{found} bytes long instead of {length}", str(path))

    def publish(self) -> None:
        """Give it its name, with everything on disk before and after. Raises OSError."""
        sync_folder(self.folder)
        if self.final.exists():  # of the same step: damaged, or about to be written again
            remove(self.final)
        self.folder.rename(self.final)
        sync_folder(self.parent)

    def discard(self) -> None:
        """Leave nothing of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def discard_file(self, name: str) -> None:
        """Leave nothing of one rank's file, and no folder where it was the last."""
        with suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()


def remove(folder: Path) -> None:
    """Delete a checkpoint: it vanishes at once, its files after that."""
    hidden = folder.with_name(f".{folder.name}{OLD}")
    shutil.rmtree(hidden, ignore_errors=True)
    with suppress(OSError):
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint so that it no longer counts; returns where it is now."""
    aside = folder.with_name(DAMAGED + folder.name)
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        return folder.rename(aside)
    return folder


def remove_leftovers(run_folder: Path) -> None:
    """Delete what killed runs left half written or half deleted. No run may be writing there."""
    for path in (run_folder / FOLDER).glob(".*"):
        if path.name.endswith((DRAFT, OLD)):
            shutil.rmtree(path, ignore_errors=True)
    for pattern in (".*.tmp", "step_*/.*.tmp"):  # a link to the best, a score that was being added
        for path in (run_folder / FOLDER).glob(pattern):
            path.unlink(missing_ok=True)


def remove_damaged(run_folder: Path) -> None:
    """Delete what :func:`set_aside` kept."""
    for path in (run_folder / FOLDER).glob(f"{DAMAGED}*"):
        shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make the names in it last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
