"""How far a pack has come, so that a killed one continues where it stopped and ends in the same bytes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.image_records import Mark
from data_pipeline.pending_file import write_file
from data_pipeline.sharded_writer import ShardedMark

_FILE = "journal.json"


@dataclass(frozen=True, slots=True)
class Journal:
    """Items done, and the sizes of all files at that moment.

    task: what is packed and how. digest: of the listing. names_bytes, skipped_bytes: of the two text files.
    """

    task: str
    digest: str
    items: int
    identities: int
    names_bytes: int
    skipped_bytes: int
    writer: ShardedMark


def write_journal(folder: Path, journal: Journal) -> None:
    """Replace the journal in ``folder``; the files it speaks of must be on the disk."""
    write_file(folder / _FILE, json.dumps(asdict(journal)))


def read_journal(folder: Path, task: str) -> Journal | None:
    """The journal in ``folder``, None where there is none.

    Raises:
        DataError: it is damaged, or of another task.
    """
    again = "run the command without --resume to start again"
    try:
        content: dict[str, Any] = json.loads((folder / _FILE).read_bytes())
        complete, images, group, open_shard = content.pop("writer")
        mark = None if open_shard is None else Mark(*open_shard)
        journal = Journal(writer=ShardedMark(complete, images, group, mark), **content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder / _FILE} is damaged ({error}): {again}") from error
    if journal.task != task:
        raise DataError(f"{folder} holds an unfinished pack of another kind ({journal.task}; now {task}): {again}")
    return journal
