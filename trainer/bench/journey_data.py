"""The data set of a journey: drawn, or recognised as the very one that would be drawn."""

from pathlib import Path

from data_pipeline import DataError, RecordReader
from data_pipeline.identity_names import IDENTITY_NAMES
from data_pipeline.synthetic import Style, identity_name
from trainer.bench.journey_problem import Drawn, JourneyEffort
from trainer.bench.phase_command import phase_command
from trainer.config import Config
from trainer.errors import ConfigError

STYLE: Style = "simple"  # patterns: the number of classes matters, and drawing takes a third of the time
PAIRS = "verification.bin"


def data_folder(config: Config) -> Path:
    """Where the data set goes. Raises ConfigError where ``data.records`` is not one folder."""
    records = config.data.records
    if isinstance(records, tuple) or records.suffix == ".rec":
        raise ConfigError("data.records: bench journey draws a data set of its own, name one folder")
    return records


def draw(config: Config, effort: JourneyEffort, *, end: float) -> Drawn:
    """Draw it unless it is there. Raises ConfigError where another one is."""
    folder, images = data_folder(config), effort.identities * effort.images_per_identity
    if (folder / "train.rec").exists():
        _check(folder, config, effort)
        return Drawn(0.0, images, size_on_disk(folder), 0)
    words = ["trainer", "data", "synth", str(folder), "--style", STYLE, "--seed", str(config.run.seed)]
    sizes = {
        "identities": effort.identities,
        "images-per-identity": effort.images_per_identity,
        "unseen-identities": effort.unseen_identities,
        "pairs": effort.pairs,
        "image-size": config.data.image_size,
        "workers": effort.cores,
    }
    words += [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    with phase_command("drawing the data set", words, threads=1, end=end) as command:
        phase = command.finish()
    return Drawn(phase.seconds, images, size_on_disk(folder), phase.peak_together)


def size_on_disk(folder: Path) -> int:
    """Of all files below a folder, bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _check(folder: Path, config: Config, effort: JourneyEffort) -> None:
    try:
        reader = RecordReader(folder)
        with (folder / IDENTITY_NAMES).open(encoding="utf-8") as names:
            first = names.readline().rstrip("\n")
        found = (reader.num_identities, len(reader), first, (folder / PAIRS).exists())
    except (DataError, OSError) as error:
        raise ConfigError(f"{folder}: holds a data set that cannot be used ({error}); delete it") from None
    name = f"0\t{identity_name(config.run.seed, 0, STYLE)}"
    wanted = (effort.identities, effort.identities * effort.images_per_identity, name, True)
    if found != wanted:
        raise ConfigError(
            f"{folder}: holds another data set ({found[1]:,} images of {found[0]:,} identities) than the "
            f"{wanted[1]:,} images of {wanted[0]:,} identities that are asked for: delete it, or choose another folder"
        )
