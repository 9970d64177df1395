"""What came of growing: figures for the log, lines for people."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from trainer.growth_config import GrowthConfig

CLEARLY_NEARER = 0.05  # rad


@dataclass(frozen=True)
class Grown:
    """folder, step: of the checkpoint grown from. kept, new, left: identities.

    vacant: new ones without images; unusable: new ones none of whose images could be used; both start at random.
    length: of new centers at a mean, None where there are none. own_angle, other_angle: rad, mean angle of images of
    identities that stay to their centers and to those of others; None where none has images.
    """

    folder: Path
    step: int
    kept: int
    new: int
    left: int
    vacant: int
    unusable: int
    length: float | None
    own_angle: float | None
    other_angle: float | None

    def lines(self, config: GrowthConfig) -> list[str]:
        """For people: a summary, and a warning where the images do not look like those whose centers they got."""
        warning = self._warning()
        return [self._summary(config), *([] if warning is None else [f"warning: {warning}"])]

    def log(self, log: FilteringBoundLogger) -> None:
        """All of it as one line of the log, and the warning."""
        log.info("grown", **(asdict(self) | {"folder": str(self.folder)}))
        if (warning := self._warning()) is not None:
            log.warning("grown centers", reason=warning)

    def _summary(self, config: GrowthConfig) -> str:
        how = "at random"
        if config.new_centers == "mean_embedding":
            how = f"at the mean of at most {config.images_per_identity} images each"
            if self.vacant + self.unusable:
                how += f", {self.vacant + self.unusable:,} without a usable one at random"
        angles = ""
        if self.own_angle is not None and self.other_angle is not None:
            own, other = _degrees(self.own_angle), _degrees(self.other_angle)
            angles = f"; images of kept ones lie {own} from their centers, {other} from others'"
        return (
            f"grown from {self.folder}: {self.kept:,} identities kept, "
            f"{self.new:,} new{f' ({how})' if self.new else ''}, {self.left:,} left; "
            f"momentum {'kept' if config.momentum == 'keep' else 'empty'}{angles}"
        )

    def _warning(self) -> str | None:
        if self.own_angle is None or self.other_angle is None or self.own_angle < self.other_angle - CLEARLY_NEARER:
            return None
        return (
            f"images of kept identities lie {_degrees(self.own_angle)} from their old centers and "
            f"{_degrees(self.other_angle)} from those of others: the old run has hardly learned, or the names of the "
            "two data sets do not mean the same people"
        )


def _degrees(angle: float) -> str:
    return f"{math.degrees(angle):.1f}°"
