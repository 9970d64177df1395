"""Who is behind each number of a run: ``identities.tsv`` beside ``run.toml``, as the run was begun with it.

Numbers alone tell nothing once a data set is packed anew. The file is what lets a later run take over centers by name,
and what a continued run is held to.
"""

import hashlib
from functools import cached_property
from pathlib import Path

from data_pipeline import RecordReader
from data_pipeline.identity_names import IDENTITY_NAMES, IdentityNames, data_set_names, read_names
from data_pipeline.record import MAX_IDENTITY
from trainer.errors import ConfigError


class RunIdentities:
    """Names of the identities that a run in ``run_folder``, begun already or not, trains on with ``reader``.

    Rank 0 alone asks it anything; making it reads nothing.
    """

    def __init__(self, reader: RecordReader, num_identities: int, run_folder: Path) -> None:
        self._reader = reader
        self._num_identities = num_identities
        self._path = run_folder / IDENTITY_NAMES

    @cached_property
    def names(self) -> IdentityNames | None:
        """Of the data set, else those that the run was begun with; None where identities go by their numbers.

        Raises DataError for a file that cannot be used.
        """
        found = data_set_names(self._reader.paths, self._reader.identities, self._num_identities)
        return found if found is not None else self._begun_with

    def settle(self, pinned: str | None) -> str | None:
        """SHA-256 of the names, None where identities go by their numbers; ``pinned``: as the configuration wants it.

        Raises ConfigError when the run was begun with other names, DataError for a file that cannot be used.
        """
        found = self._unchanged() or (self.names.sha256 if self.names is not None else None)
        begun = self._begun_with if found is not None and self._sha256_begun_with not in (None, found) else None
        if begun is not None and self.names is not None:
            raise ConfigError(
                f"{self._path.parent} was begun with other identities: {_difference(begun, self.names)}; "
                "give the data set of that run, or take its centers over into a new one with [growth]"
            )
        if pinned not in (None, found):
            raise ConfigError(
                f"data.identities_sha256 is {pinned}, the data set's names have {found or 'no file'}: it is another "
                "data set, or the key comes from another run's configuration and can go"
            )
        return found

    def keep(self) -> None:
        """Put the names into the run's folder, which exists by now, if they are not there."""
        if not self._path.exists() and self.names is not None:
            self.names.write(self._path)

    def _unchanged(self) -> str | None:
        """The SHA-256 where the data set's file is the run's, byte for byte: nearly every restart, and soon found."""
        files = {path.parent / IDENTITY_NAMES for path in self._reader.paths}
        mine = self._sha256_begun_with
        return mine if mine is not None and len(files) == 1 and _sha256(files.pop()) == mine else None

    @cached_property
    def _sha256_begun_with(self) -> str | None:
        return _sha256(self._path)

    @cached_property
    def _begun_with(self) -> IdentityNames | None:
        return read_names(self._path, num_identities=MAX_IDENTITY)  # whoever differs is told by name


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):  # check_run_folder says what is wrong with a file there
        return None


def _difference(begun: IdentityNames, now: IdentityNames) -> str:
    for names, other in ((begun, now), (now, begun)):
        for place, identity in enumerate(names.ids.tolist()):
            theirs = other.name_of(identity)
            if theirs != names.name(place):
                there, here = (repr(each.name_of(identity) or "nobody") for each in (begun, now))
                return f"{identity} was {there} and is {here} in the data set"
    return "their order differs"
