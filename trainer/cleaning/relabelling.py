"""Suspicions as a relabel file: what ``pfc data reshard --relabel-file`` makes of the data set."""

import math

from trainer.cleaning.survey import Survey
from trainer.cleaning.suspicion import Suspicions


def relabel_lines(
    found: Survey, suspicions: Suspicions, *, num_classes: int, records: str, move: bool = False
) -> list[str]:
    """Split identities become one; the smaller group of a merged one gets a new number from ``num_classes`` on; a
    wrong image leaves, or where ``move`` says so and it may, goes to whom it looks like. Every line says why; each can
    be deleted by hand, or turned off by a ``#``.
    """
    lines = [f"# pfc data clean, of {records}", "# apply: pfc data reshard INPUT --output DIR --relabel-file FILE"]
    identity = found.identities.tolist()
    becomes = {each.other: identity[each.keep] for each in suspicions.split}
    lines += [
        f"{identity[each.other]}\t{identity[each.keep]}\tsplit: their means are {_degrees(each.angle)} apart"
        for each in suspicions.split
    ]
    lines += [
        f"image\t{position}\t{num_classes + place}\tmerged: second person in {identity[one.number]}, "
        f"{_degrees(one.as_far_as)} from the first"
        for place, one in enumerate(suspicions.merged)
        for position in one.images.tolist()
    ]
    for wrong in suspicions.wrong:
        other = int(found.nearest[wrong.place])
        # Whoever leaves for another identity takes what moves to it along.
        target = becomes.get(other, identity[other]) if move and wrong.moves else "drop"
        lines.append(
            f"image\t{found.positions[wrong.place]}\t{target}\tnoisy: {_degrees(found.own[wrong.place])} from "
            f"{identity[found.owner[wrong.place]]}, {_degrees(found.nearest_angle[wrong.place])} from {identity[other]}"
        )
    return lines


def _degrees(angle: float) -> str:
    return f"{math.degrees(angle):.0f} deg"
