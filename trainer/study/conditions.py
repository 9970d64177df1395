"""What is wrong with the labels in a part of the study: nothing, or a share of them, in one of two ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_pipeline.noise import write_noisy
from trainer.errors import ConfigError

Kind = Literal["clean", "closed", "open"]


@dataclass(frozen=True)
class Condition:
    """kind: "closed" (images with another identity of the set), "open" (images of people outside) or "clean".

    share: of the images, in [0, 1).
    """

    kind: Kind
    share: float

    @property
    def name(self) -> str:
        """``clean``, ``closed_20``, ``open_2.5``: part of file names."""
        return "clean" if self.kind == "clean" else f"{self.kind}_{100 * self.share:g}"

    @property
    def title(self) -> str:
        """For people."""
        return "clean labels" if self.kind == "clean" else f"{100 * self.share:g}% {self.kind}-set noise"


CLEAN = Condition("clean", 0.0)


def conditions_of(closed: Sequence[float], opened: Sequence[float]) -> list[Condition]:
    """Clean labels first, then the shares of each kind, rising. Raises ConfigError for what is no share."""
    for share in (*closed, *opened):
        if not 0 < share < 1:
            raise ConfigError(
                f"noise of {share:g}: give shares between 0 and 1, such as 0.2; clean labels are always run"
            )
    found = [CLEAN]
    found += [Condition("closed", share) for share in sorted(set(closed))]
    found += [Condition("open", share) for share in sorted(set(opened))]
    return found


def prepared(condition: Condition, seed: int, *, records: Path, distractors: Path | None, folder: Path) -> Path:
    """The data set of a condition, written below ``folder`` if it is not there yet; clean labels need no copy.

    The images that are spoilt depend on ``seed``, not on the loss; those of a smaller share are among those of a
    larger one. Raises DataError as :func:`data_pipeline.noise.write_noisy` does.
    """
    if condition.kind == "clean":
        return records
    target = folder / f"{condition.name}_seed_{seed}"
    if not (target / "train.rec").exists():
        write_noisy(
            records,
            target,
            closed_set=condition.share if condition.kind == "closed" else 0.0,
            open_set=condition.share if condition.kind == "open" else 0.0,
            distractors=distractors if condition.kind == "open" else None,
            seed=seed,
        )
    return target
