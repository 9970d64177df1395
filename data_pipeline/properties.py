"""The ``property`` file in a data set's folder: one line ``num_identities,height,width``, as InsightFace has it."""

from dataclasses import dataclass
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.pending_file import write_file

FILE_NAME = "property"


@dataclass(frozen=True, slots=True)
class Properties:
    """Number of identities and image size in pixels."""

    num_identities: int
    height: int
    width: int


def read_properties(folder: Path) -> Properties | None:
    """The properties of the data set in ``folder``, None where it has no such file.

    Raises:
        DataError: the file is not three positive whole numbers.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as stream:
            fields = stream.read(256).decode("ascii", "replace").strip().split(",")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if len(fields) != 3 or not all(field.strip().isascii() and field.strip().isdigit() for field in fields):
        raise DataError(
            f"{path} is not 'num_identities,height,width': correct it, or delete it to have the ids counted"
        )
    found = Properties(*(int(field) for field in fields))
    if min(found.num_identities, found.height, found.width) < 1:
        raise DataError(f"{path} holds a zero: correct it, or delete it to have the identities counted")
    return found


def write_properties(folder: Path, properties: Properties) -> None:
    """Write the ``property`` file of ``folder``."""
    write_file(folder / FILE_NAME, f"{properties.num_identities},{properties.height},{properties.width}\n")
