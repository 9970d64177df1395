"""The step benchmark as text and CSV."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.bench.step_problem import (
    LARGEST_METRICS_SHARE,
    LARGEST_STEP_OVER_PARTS,
    LOADED_OVER_SUM,
    LOADED_STEP,
    METRICS_SHARE,
    PARTS,
    RATIOS,
    STEP,
    STEP_OVER_SUM,
    SUM,
    SUM_WITH_DECODE,
    TOLD,
    TOLD_SHARE,
    Quartiles,
    StepResults,
)

WHAT = {
    "decode": "the loader's next batch, nothing beside it",
    "forward": "bare backbone",
    "gather": "bare all-gathers of the same size",
    "head": "forward and backward, gathered before",
    "backward": "bare backbone",
    "exchange": "bare all-reduces of the backbone's gradient",
    "optimizer": "torch's and CenterSGD",
    "metrics": "all that is told of a step",
    SUM: "of the parts but decode",
    STEP: "of the loop, batches in memory",
    SUM_WITH_DECODE: "of all parts",
    LOADED_STEP: "of the loop, batches from the loader",
    TOLD: "metrics as timed in the loop, mean",
}
HEADINGS = ("", "wall ms (quartiles)", "share", "CPU ms", "")
ASKED = f"asked: <= {LARGEST_STEP_OVER_PARTS}x"


def format_step(results: StepResults) -> str:
    """An aligned table between a line that says how it was measured and the ratios."""
    total = results.figures[SUM].wall.median
    table = [HEADINGS]
    for name, what in WHAT.items():
        found = results.figures[name]
        milliseconds = f"{1000 * found.wall.median:,.2f}"
        if name != TOLD:
            milliseconds += f" ({1000 * found.wall.q1:,.2f}-{1000 * found.wall.q3:,.2f})"
        share = f"{found.wall.median / total:.1%}"
        table.append((name.replace("_", " "), milliseconds, share, f"{1000 * found.cpu.median:,.2f}", what))
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(line[at].rjust(widths[at]) for at in (1, 2, 3)), line[4]]).rstrip()
        for line in table
    ]
    lines += [
        f"step / sum:                     {_both(results, STEP_OVER_SUM, _times)}; {ASKED}",
        f"loaded step / sum with decode:  {_both(results, LOADED_OVER_SUM, _times)}; {ASKED}",
        f"metrics / step:                 {_both(results, METRICS_SHARE, _percent)}; "
        f"in the loop {_both(results, TOLD_SHARE, _percent)}; asked: <= {LARGEST_METRICS_SHARE:.0%}",
    ]
    return "\n".join([_conditions(results), *lines])


def write_step_csv(path: Path, measured: Sequence[StepResults]) -> None:
    """One line a figure: conditions, its name, median and quartiles by both clocks; seconds, or ratios without unit."""
    text = io.StringIO(newline="")
    lines = [line for results in measured for line in _csv_lines(results)]
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["figure"])
    writer.writeheader()
    writer.writerows(lines)
    write_file(path, text.getvalue())


def _csv_lines(results: StepResults) -> Iterator[dict[str, object]]:
    conditions = asdict(results.effort) | {"world_size": results.world_size, "head_modes": results.head_modes}
    for name in (*PARTS, SUM, STEP, SUM_WITH_DECODE, LOADED_STEP, TOLD, *RATIOS):
        found = results.figures[name]
        line = conditions | {"figure": name, "unit": "ratio" if name in RATIOS else "seconds"}
        for clock, values in (("wall", found.wall), ("cpu", found.cpu)):
            line |= {clock: values.median, f"{clock}_q1": values.q1, f"{clock}_q3": values.q3}
        yield line


def _conditions(results: StepResults) -> str:
    effort, ranks = results.effort, results.world_size
    return (
        f"{effort.backbone} at {effort.image_size}x{effort.image_size}, {effort.num_classes:,} classes, "
        f"D={effort.embedding_dim}, batch {effort.batch} a rank; {ranks} {'rank' if ranks == 1 else 'ranks'}, "
        f"{effort.threads} {'thread' if effort.threads == 1 else 'threads'} each and {effort.decode_threads} of "
        f"decoding; head {results.head_modes}; median and quartiles of {effort.repetitions} rounds of {effort.steps} "
        f"steps after {effort.warmup}, seed {effort.seed}"
    )


def _both(results: StepResults, name: str, text: Callable[[Quartiles], str]) -> str:
    found = results.figures[name]
    return f"{text(found.wall)}, CPU {text(found.cpu)}"


def _times(found: Quartiles) -> str:
    return f"{found.median:.3f}x ({found.q1:.3f}-{found.q3:.3f})"


def _percent(found: Quartiles) -> str:
    return f"{found.median:.3%}"
