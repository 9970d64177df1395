"""Results on disk: ``FOLDER/step_00001000/NAME.json`` for the numbers, ``NAME.npz`` for the scores. P pairs."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_pipeline.files_together import write_together
from trainer.errors import ConfigError
from trainer.evaluation.verification import VerificationResult


class _Curve(BaseModel):
    far: list[float]
    tar: list[float]


class _Numbers(BaseModel):
    """The JSON file."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    step: int = Field(ge=0)
    name: str
    pairs: int = Field(ge=0)
    accuracy_mean: float
    accuracy_std: float
    threshold: float
    auc: float
    equal_error_rate: float
    tar_at_far: dict[str, float | None]
    roc: _Curve


@dataclass(frozen=True, eq=False)
class StoredResult(VerificationResult):
    """A ``VerificationResult`` and the training step it belongs to."""

    step: int


def save_result(folder: Path, step: int, result: VerificationResult) -> None:
    """Write ``result``; an older one of the same step and name is replaced. Both files, or nothing.

    Raises:
        ConfigError: ``result.name`` cannot be a file name.
    """
    write_together(result_files(folder, step, result))


def result_files(folder: Path, step: int, result: VerificationResult) -> dict[Path, bytes]:
    """What ``save_result`` writes, the JSON file last."""
    if not result.name or Path(result.name).name != result.name or result.name.startswith("."):
        raise ConfigError(f"pairs name {result.name!r}: cannot be a file name; rename the pairs file")
    target = folder / f"step_{step:08d}"
    arrays = io.BytesIO()
    np.savez(arrays, scores=result.scores, same=result.same)
    numbers = json.dumps(result_numbers(step, result), allow_nan=False) + "\n"
    return {target / f"{result.name}.npz": arrays.getvalue(), target / f"{result.name}.json": numbers.encode()}


def result_numbers(step: int, result: VerificationResult) -> dict[str, Any]:
    """The content of the JSON file: everything but the scores."""
    return _Numbers(
        step=step,
        name=result.name,
        pairs=result.pairs,
        accuracy_mean=result.accuracy_mean,
        accuracy_std=result.accuracy_std,
        threshold=result.threshold,
        auc=result.auc,
        equal_error_rate=result.equal_error_rate,
        tar_at_far=result.tar_at_far,
        roc=_Curve(far=result.roc_far.tolist(), tar=result.roc_tar.tolist()),
    ).model_dump()


def load_results(folder: Path) -> list[StoredResult]:
    """All results below ``folder``, by step and then by name; an absent folder holds none.

    Raises:
        ConfigError: a file that is missing, broken, or does not fit the other.
    """
    results = [_load(path) for path in folder.glob("step_*/*.json")]
    return sorted(results, key=lambda result: (result.step, result.name))


def _load(path: Path) -> StoredResult:
    try:
        numbers = _Numbers.model_validate_json(path.read_bytes())
        with zipfile.ZipFile(path.with_suffix(".npz")) as archive:
            scores = _read_array(archive, "scores", np.dtype(np.float32), numbers.pairs)
            same = _read_array(archive, "same", np.dtype(np.bool_), numbers.pairs)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where or 'file'}: {first['msg']}; delete it and evaluate again") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: scores beside it are unusable ({reason}); delete it and evaluate again") from None
    content = numbers.model_dump(exclude={"roc"})
    far, tar = np.array(numbers.roc.far), np.array(numbers.roc.tar)
    return StoredResult(**content, roc_far=far, roc_tar=tar, scores=scores, same=same)


def _read_array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    """One vector of the archive; nothing is allocated before its header and size are found to be right."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(info) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{name} is of another format version")
        shape, _, found = np.lib.format.read_array_header_1_0(stream)
        if shape != (length,) or found != dtype:
            raise ValueError(f"{name} is {found} {list(shape)} instead of {dtype} [{length}]")
        if info.file_size - stream.tell() != length * dtype.itemsize:
            raise ValueError(f"{name} is cut short")
        return np.frombuffer(stream.read(), dtype=dtype)
