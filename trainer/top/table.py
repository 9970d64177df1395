"""From jobs to lines of a given width; each line is pieces of text with the name of a style."""

from collections.abc import Sequence
from typing import NamedTuple

from trainer.top.jobs import Job
from trainer.top.ranks import COLUMNS, Column, Rank, State

GAP = "  "
STYLES = {State.UP: "green", State.STARTING: "yellow", State.UNHEALTHY: "bold red", State.GONE: "red"}
MOST_PROBLEMS = 8


class Piece(NamedTuple):
    """A part of a line. style: as the library rich names styles, empty for none."""

    text: str
    style: str = ""


Line = list[Piece]


def lay_out(jobs: Sequence[Job], width: int | None) -> list[Line]:
    """All jobs one below the other. width: columns of the terminal; None: as wide as it gets."""
    lines: list[Line] = []
    for job in jobs:
        if lines:
            lines.append([])
        lines.append([Piece(_cut(job.title(), width), "bold")])
        lines += [[Piece(line)] for line in _broken(job.figures(), width)]
        lines += _rank_table(job.ranks, width)
        problems = job.problems()
        lines += [[Piece(_cut(problem, width), "red")] for problem in problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            lines.append([Piece(_cut(f"and {len(problems) - MOST_PROBLEMS} more do not answer", width), "red")])
    return lines


def plain(lines: Sequence[Line]) -> str:
    """As text without styles."""
    return "\n".join("".join(piece.text for piece in line).rstrip() for line in lines) + "\n"


def _rank_table(ranks: Sequence[Rank], width: int | None) -> list[Line]:
    columns = [(column, [column.title, *(column.cell(rank) for rank in ranks)]) for column in COLUMNS]
    while width is not None and len(columns) > 1 and _width(columns) > width:
        # Of the least important ones the last.
        least = max(range(len(columns)), key=lambda number: (columns[number][0].priority, number))
        del columns[least]
    padded = [_padded(column, cells) for column, cells in columns]
    lines: list[Line] = [[Piece(_cut(GAP.join(cells[0] for cells in padded), width), "dim")]]
    for number, rank in enumerate(ranks, start=1):
        line: Line = []
        for (column, _), cells in zip(columns, padded, strict=True):
            style = STYLES[rank.state] if column.title == "state" else ""
            line += [Piece(GAP)] * bool(line) + [Piece(cells[number], style)]
        lines.append(line)
    return lines


def _width(columns: Sequence[tuple[Column, list[str]]]) -> int:
    return sum(max(map(len, cells)) for _, cells in columns) + len(GAP) * (len(columns) - 1)


def _padded(column: Column, cells: Sequence[str]) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if column.left else cell.rjust(width) for cell in cells]


def _broken(words: Sequence[str], width: int | None) -> list[str]:
    """As many as fit to a line."""
    limit = 110 if width is None else width
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(GAP) + len(word) <= limit:
            lines[-1] += GAP + word
        else:
            lines.append(_cut(word, width))
    return lines


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(0, width - 1)] + "…"
