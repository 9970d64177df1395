"""A folder of folders of images, or a list file, -> a data set of records; resumable, by several processes.

Folders are numbered in the order of their names, names of a list in the order of their first image. What goes into
the records depends on the source and the options alone: not on the number of workers, nor on how often it was
interrupted.
"""

import json
from dataclasses import asdict
from pathlib import Path

from data_pipeline.draft import Draft, refuse_overlap
from data_pipeline.errors import DataError
from data_pipeline.pack_journal import Journal, read_journal
from data_pipeline.pack_listing import list_images
from data_pipeline.pack_run import Packed, PackOptions, PackRun
from data_pipeline.properties import read_properties
from data_pipeline.reader import RecordReader
from data_pipeline.record_set import find_records
from data_pipeline.sharded_writer import ShardedMark

__all__ = ["PackOptions", "Packed", "pack_folder", "pack_images"]


def pack_folder(
    folder: Path,
    output: Path,
    *,
    image_size: int = 112,
    quality: int = 95,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> Packed:
    """Pack ``folder``/NAME/IMAGE as ``pack_images`` does, into one record file.

    Raises:
        DataError: as ``pack_images``, or ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give one that holds a folder of images per identity")
    options = PackOptions(image_size=image_size, quality=quality, skip_bad=skip_bad)
    return pack_images(folder, output, options, overwrite=overwrite)


def pack_images(
    source: Path,
    output: Path,
    options: PackOptions,
    *,
    root: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    workers: int = 1,
    checkpoint_seconds: float = 5.0,
) -> Packed:
    """Write a data set into ``output`` from ``source``: record files with indexes, property, identities.tsv.

    ``source`` is a folder with a folder of images per identity, or a list file (``pack_list``) with paths relative to
    ``root`` or to itself. A JPEG of the right size is stored byte for byte, any other image is resized and encoded.
    Other files and hidden ones are left alone; an identity with nothing to pack gets no number. identities.tsv has
    the lines ``id<tab>name``; a list of numbers has no names.

    With ``resume`` an earlier pack of the same kind that was interrupted continues; the result is the same to the
    byte. An interrupted pack (not one refused for its input) can be resumed; progress is saved every
    ``checkpoint_seconds`` seconds.

    Raises:
        DataError: nothing to pack, an unreadable image or an empty folder (unless ``skip_bad``), an output that
            exists (unless ``overwrite``), or a source that changed since the pack that is to be resumed.
    """
    if not source.exists():
        raise DataError(f"{source} is not a folder or list file: it does not exist")
    if root is not None and source.is_dir():
        raise DataError(f"--root {root} is for the paths in a list file, but {source} is a folder: leave it out")
    if not 1 <= workers <= 1024:
        raise DataError(f"{workers} workers: give 1 to 1024")
    refuse_overlap(output, [source] if source.is_dir() else [])
    task = json.dumps({"source": str(source.resolve()), "root": root and str(root.resolve()), **asdict(options)})
    with Draft(output, task=task, overwrite=overwrite, resume=resume) as draft:
        if draft.completed:
            return _already_packed(output)
        draft.keep = resume  # what one resumes is too dear to be dropped for a wrong option or image
        journal = read_journal(draft.folder, task) if resume else None
        listing = list_images(source, root, draft.folder / "listing")
        if journal is not None and journal.digest != listing.digest:
            raise DataError(
                f"{source} has changed since the pack that is to be resumed: run the command without --resume to "
                "start again"
            )
        journal = journal or Journal(task, listing.digest, 0, 0, 0, 0, ShardedMark(0, 0, 0, None))
        try:
            draft.keep = True
            return PackRun(draft, listing, options, journal, workers, checkpoint_seconds, source).run()
        except DataError:
            draft.keep = resume
            raise


def _already_packed(output: Path) -> Packed:
    paths = find_records(output)
    properties = read_properties(output)
    with RecordReader(paths) as reader:
        return Packed(paths[0], properties.num_identities if properties else 0, len(reader), [])
