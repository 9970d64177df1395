"""A data set in the making: all its files are made in a hidden folder of the output, then get their names together."""

import fcntl
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from data_pipeline.errors import DataError
from data_pipeline.identity_names import IDENTITY_NAMES
from data_pipeline.pending_file import write_file
from data_pipeline.properties import FILE_NAME
from data_pipeline.record_set import DALI_INDEX, UNFINISHED, is_own_name

RELABELLED = "relabel.tsv"
NOISE = "noise.tsv"
PAIRS = "verification.bin"
_DESCRIBING = (FILE_NAME, DALI_INDEX, IDENTITY_NAMES, RELABELLED, NOISE)  # wrong beside any other records
_PUBLISHING = "publishing.json"
_LOCK = "lock"


def refuse_overlap(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output folder that is, or lies in, a folder that is read (of a file: its folder).

    Raises:
        DataError: so it is.
    """
    target = output.resolve()
    for source in inputs:
        folder = source.resolve() if source.is_dir() else source.resolve().parent
        if target == folder:
            raise DataError(f"{output} is the folder that {source} is read from: choose another output")
        if source.is_dir() and folder in target.parents:
            raise DataError(
                f"{output} lies inside {source}, which is read, and would become a part of it: "
                "choose an output elsewhere"
            )


class Draft:
    """Makes ``folder`` (hidden, in ``output``) on entering; ``publish`` gives the files in it their names.

    Whatever ends the block otherwise, the output is left as it was, unless ``keep`` was set: then the folder stays
    for a command that resumes. A killed process leaves the hidden folder; the next draft removes it, or, where the
    files were already getting their names, completes that first. One process at a time holds a draft.

    Args:
        output: folder of the data set, made where it does not exist.
        task: what is being made, in words; after entering, ``completed`` says whether a killed process of the same
            task had only names to give, so that nothing is left to do (with ``resume``).
        overwrite: replace a data set that is there.
        resume: find the hidden folder as a killed process left it.
        extra: files besides records, index, property and names that will be published.

    Raises:
        DataError: a data set is there (unless ``overwrite``), other record files are, the folder cannot be made, or
            another process is making a data set in it.
    """

    def __init__(
        self, output: Path, *, task: str = "", overwrite: bool = False, resume: bool = False, extra: Sequence[str] = ()
    ) -> None:
        self.output, self.folder = output, output / UNFINISHED
        self.keep = self.completed = False
        self._task, self._finished = task, False
        self._overwrite, self._resume, self._extra = overwrite, resume, tuple(extra)
        self._publishing = False

    def __enter__(self) -> "Draft":
        self._is_new = not self.output.exists()
        if not self._is_new and not self.folder.exists():
            self._check_output()  # before anything is made there
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {self.output}: {error.strerror}; choose another output") from error
        self._lock = (self.folder / _LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise DataError(f"another command is writing into {self.output}: wait for it to end") from None
        except OSError:
            pass  # a file system without locks
        try:
            if (self.folder / _PUBLISHING).exists():
                self.completed = self._give_names() == self._task and self._resume
            if self.completed:
                return self
            self._check_output()
            if not self._resume:
                self._empty()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._publishing and (self._finished or not self.keep):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        if self._is_new:
            with suppress(OSError):
                self.output.rmdir()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.output)  # write() does not say which file; this tells the disk at least

    def publish(self, names: Mapping[str, str]) -> None:
        """Give the files of the draft their names (name in ``folder`` -> name in ``output``), record files last.

        What describes an earlier data set goes first, so at no moment is the output a mixture of two: it holds no
        records, or not all of a set (which readers refuse), or the whole.
        """
        assert all((self.folder / name).is_file() for name in names), "a file that was not made cannot be published"
        own = [path.name for path in self.output.iterdir() if is_own_name(path.name) or path.name in _DESCRIBING]
        own += [name for name in names.values() if (self.output / name).exists() and name not in own]
        plan = {
            "task": self._task,
            "remove": sorted(own, key=lambda name: (not name.endswith(".rec"), name)),
            "rename": sorted(names.items(), key=lambda pair: (pair[1].endswith(".rec"), pair[1])),
        }
        write_file(self.folder / _PUBLISHING, json.dumps(plan))
        self._give_names()
        self._finished = True

    def _give_names(self) -> str:
        """Carry out the plan, from wherever a killed process left it; returns its task."""
        self._publishing = True
        plan = json.loads((self.folder / _PUBLISHING).read_bytes())
        moved = {new for old, new in plan["rename"] if not (self.folder / Path(old).name).exists()}
        for name in plan["remove"]:
            if name not in moved:
                (self.output / Path(name).name).unlink(missing_ok=True)
        for old, new in plan["rename"]:
            if new not in moved:
                (self.folder / Path(old).name).replace(self.output / Path(new).name)
        self._empty()
        self._publishing = self._is_new = False
        return str(plan["task"])

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in (_LOCK, _PUBLISHING):
                path.unlink()
        # The plan goes last: until then a killed process is taken up again where it only had to tidy up.
        (self.folder / _PUBLISHING).unlink(missing_ok=True)

    def _check_output(self) -> None:
        if not self.output.is_dir():
            return  # making it will tell
        present = sorted(path.name for path in self.output.iterdir())
        foreign = [name for name in present if name.endswith(".rec") and not is_own_name(name) and name[0] != "."]
        if foreign:
            raise DataError(
                f"{self.output} holds {foreign[0]}, which would be read as part of the data set: "
                "choose another output folder"
            )
        own = [name for name in present if is_own_name(name) or name in (FILE_NAME, IDENTITY_NAMES, *self._extra)]
        if own and not self._overwrite:
            first = min(own, key=lambda name: (not name.endswith(".rec"), name))
            raise DataError(f"{self.output / first} exists: choose another output folder or add --overwrite")
