"""A folder of folders of images -> a data set: one identity per folder, in the order of the folders' names."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data_pipeline.decode_image import decode_image
from data_pipeline.errors import DataError
from data_pipeline.image_size import jpeg_size
from data_pipeline.pending_file import write_file
from data_pipeline.properties import FILE_NAME, Properties, write_properties
from data_pipeline.writer import RecordWriter

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FILES = ("train.rec", "train.idx", FILE_NAME, "identities.txt")


@dataclass(frozen=True, slots=True)
class Packed:
    """What ``pack_folder`` wrote: the record file, counts, and one line for each image left out."""

    records: Path
    identities: int
    images: int
    skipped: list[str]


def pack_folder(
    folder: Path,
    output: Path,
    *,
    image_size: int = 112,
    quality: int = 95,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> Packed:
    """Write ``output``/{train.rec, train.idx, property, identities.txt} from ``folder``/NAME/IMAGE.

    Names are sorted and numbered from 0; identities.txt has the lines ``id<tab>name``. A JPEG of the right size is
    stored byte for byte, any other image is resized to ``image_size`` pixels square and encoded at ``quality``. Other
    files and hidden ones are left alone; a folder with nothing to pack gets no number.

    Raises:
        DataError: nothing to pack, an unreadable image or an empty folder (unless ``skip_bad``), or an output that
            exists (unless ``overwrite``). Nothing is written then.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give one that holds a folder of images per identity")
    if image_size < 1 or not 1 <= quality <= 100:
        raise DataError(
            f"image size {image_size} with quality {quality}: sizes start at 1 pixel, qualities are 1 to 100"
        )
    existing = [output / name for name in FILES if (output / name).exists()]
    if existing and not overwrite:
        raise DataError(f"{existing[0]} exists: choose another output folder or add --overwrite")
    if output.resolve().parent == folder.resolve():
        raise DataError(f"{output} would be packed as an identity of {folder}: choose an output elsewhere")
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {output}: {error.strerror}; choose another output") from error
    try:
        return _pack(folder, output, image_size, quality, skip_bad)
    except BaseException:
        if is_new:
            with suppress(OSError):
                output.rmdir()
        raise


def _pack(folder: Path, output: Path, image_size: int, quality: int, skip_bad: bool) -> Packed:
    names: list[str] = []
    skipped: list[str] = []
    # All four files are made in a folder of their own first: an error leaves the output as it was.
    with tempfile.TemporaryDirectory(prefix=".pack.", dir=output) as draft:
        with RecordWriter(Path(draft) / FILES[0]) as writer:
            for name, paths in _identity_folders(folder):
                before = writer.num_images
                if not paths:
                    reason = f"{folder / name} holds no images"
                    if not skip_bad:
                        raise DataError(f"{reason}: remove it or add --skip-bad")
                    skipped.append(reason)
                for path in paths:
                    try:
                        jpeg = _encoded(path, image_size, quality)
                    except (OSError, ValueError) as error:
                        reason = f"{path} is not a readable image ({error})"
                        if not skip_bad:
                            raise DataError(f"{reason}: remove it or add --skip-bad") from error
                        skipped.append(reason)
                    else:
                        writer.write(len(names), jpeg)
                if writer.num_images > before:
                    names.append(name)
            if not names:
                raise DataError(
                    f"{folder} holds no folder with readable images ({len(skipped)} left out): give one that holds a "
                    f"folder per identity with {', '.join(sorted(SUFFIXES))} files"
                )
        write_properties(Path(draft), Properties(len(names), image_size, image_size))
        write_file(Path(draft) / FILES[3], "".join(f"{number}\t{name}\n" for number, name in enumerate(names)))
        (output / FILES[1]).unlink(missing_ok=True)  # never new records beside an old index
        for file in FILES:
            (Path(draft) / file).replace(output / file)
    return Packed(output / FILES[0], len(names), writer.num_images, skipped)


def _identity_folders(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Name and sorted image files of each folder in ``folder``, in the order of the names."""
    for each in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not each.name.isprintable():
            raise DataError(f"{str(each)!r}: a name with unprintable characters cannot be listed: rename the folder")
        inside = sorted(path for path in each.iterdir() if not path.name.startswith("."))
        yield each.name, [path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file()]


def _encoded(path: Path, image_size: int, quality: int) -> bytes:
    """The JPEG to store for one file.

    Raises:
        ValueError, OSError: it cannot be read or decoded.
    """
    content = path.read_bytes()
    pixels = decode_image(content, image_size)  # a JPEG that is stored as it is must decode, too
    if jpeg_size(content) == (image_size, image_size):
        return content
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
