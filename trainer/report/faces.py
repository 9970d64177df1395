"""The sheet of worst pairs: the faces that the model gets most wrong, side by side.

P: pairs of a verification set.
"""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.errors import DataError
from data_pipeline.pairs import Pairs, read_pairs
from trainer.evaluation.store import StoredResult

_SIDE = 112  # pixels
_LARGEST_SIDE = 4096  # a bigger picture is no face crop; decoding it could take all memory


@dataclass(frozen=True, kw_only=True)
class FacePair:
    """Two faces as ``data:`` addresses (None: not decodable), their number in the file, score and verdict."""

    number: int
    left: str | None
    right: str | None
    score: float
    is_error: bool


@dataclass(frozen=True, kw_only=True)
class PairSheet:
    """The worst pairs of a set, or why they cannot be shown.

    false_rejects: same pairs, lowest score first.  false_accepts: different pairs, highest score first.
    reject_errors, accept_errors: how many of the set's same_pairs and different_pairs are on the wrong side.
    """

    name: str
    step: int
    threshold: float
    false_rejects: list[FacePair]
    false_accepts: list[FacePair]
    reject_errors: int
    accept_errors: int
    same_pairs: int
    different_pairs: int
    problem: str = ""


def thumbnail(jpeg: bytes) -> str | None:
    """A face as a small JPEG ``data:`` address, or None if the bytes are no picture.

    The picture is decoded and written anew: what else the file's bytes hold does not reach the page.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata in a face crop concerns nobody here
            image = Image.open(io.BytesIO(jpeg), formats=("JPEG", "PNG"))
            if max(image.size) > _LARGEST_SIDE:
                return None
            small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _worst(pairs: Pairs, result: StoredResult, *, same: bool, count: int) -> list[FacePair]:
    numbers = np.flatnonzero(np.asarray(result.same) == same)
    scores = result.scores[numbers]
    numbers = numbers[np.argsort(scores if same else -scores, kind="stable")][:count]
    return [
        FacePair(
            number=int(number),
            left=thumbnail(pairs.jpegs[2 * number]),
            right=thumbnail(pairs.jpegs[2 * number + 1]),
            score=float(result.scores[number]),
            is_error=bool(_errors(result)[number]),
        )
        for number in numbers
    ]


def _errors(result: StoredResult) -> NDArray[np.bool_]:
    """[P] pairs on the wrong side of the threshold: accepted is a score >= it."""
    scores = result.scores.astype(np.float64)  # float32 would round the threshold onto its nearest score
    return np.asarray((scores >= result.threshold) != result.same)


def worst_pairs(result: StoredResult, path: Path | None, count: int) -> PairSheet:
    """The ``count`` same pairs with the lowest and different pairs with the highest score.

    Faces come from the set's own file; if it is gone, unreadable or another one by now, the sheet says so.
    """
    errors = _errors(result)
    rejects: list[FacePair] = []
    accepts: list[FacePair] = []
    problem = ""
    if path is None:
        problem = "The resolved configuration lists no pairs file of this name, so its faces cannot be shown."
    elif not path.is_file():
        problem = f"The pairs file {path} is gone, so its faces cannot be shown."
    else:
        try:
            pairs = read_pairs(path)
        except (DataError, OSError) as error:
            problem = f"The pairs file cannot be read: {error}"
        else:
            if np.array_equal(np.asarray(pairs.same, dtype=bool), result.same):
                rejects = _worst(pairs, result, same=True, count=count)
                accepts = _worst(pairs, result, same=False, count=count)
            else:
                problem = f"The pairs file {path} holds other pairs than were evaluated, so no faces are shown."
    return PairSheet(
        name=result.name,
        step=result.step,
        threshold=result.threshold,
        false_rejects=rejects,
        false_accepts=accepts,
        reject_errors=int((errors & result.same).sum()),
        accept_errors=int((errors & ~result.same).sum()),
        same_pairs=int(result.same.sum()),
        different_pairs=int((~result.same).sum()),
        problem=problem,
    )
