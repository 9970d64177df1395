"""Compose the page and write it.

The template escapes every value; the page's own policy forbids a browser to load or run anything.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from data_pipeline.errors import DataError
from data_pipeline.pending_file import write_file
from trainer.errors import ConfigError
from trainer.evaluation.store import StoredResult, load_results
from trainer.report import head_chart, summary, training_charts, verification_charts
from trainer.report.drawing import Picture, drawing_style
from trainer.report.faces import PairSheet, worst_pairs
from trainer.report.metrics_log import MetricsLog, read_metrics
from trainer.report.resolved_run import ResolvedRun, read_resolved_run

_MOST_SETS = 12  # drawn with histogram and faces; the table has all
_PAIRS_ON_PAGE = 72  # 144 faces of about 5 kB


def write_report(run_dir: Path, output: Path | None = None, *, now: datetime) -> Path:
    """Draw the report of the run in ``run_dir`` and write it to ``output`` (default: report.html in the run).

    now: the time that the page names as its own. Returns the path written; the file appears whole or not at all.
    Raises ConfigError if ``run_dir`` is no run or ``output`` cannot be written.
    """
    run = read_resolved_run(run_dir)
    path = run_dir / "report.html" if output is None else output
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give --output the name of a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder for the report; make it first or choose another --output")
    _write_whole(path, render(run, now=now))
    return path


def render(run: ResolvedRun, *, now: datetime) -> str:
    """The page of a run as HTML."""
    log = read_metrics(run.metrics_path)
    notices = _log_notices(log)
    results: list[StoredResult] = []
    try:
        results = list(load_results(run.evaluations_path))
    except (ConfigError, DataError, OSError) as error:
        notices.append(f"The evaluations cannot be read: {error}")
    history = _by_set(run, results)
    drawn = dict(list(history.items())[:_MOST_SETS])
    if len(history) > len(drawn):
        notices.append(f"Charts and faces are shown for {len(drawn)} of {len(history)} sets; the table has all.")
    environment = Environment(
        loader=PackageLoader("trainer.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = summary.show_percent
    return environment.get_template("page.html.j2").render(
        run=run,
        status=summary.status(run, log),
        facts=summary.facts(run, log),
        tiles=summary.accuracy_tiles(drawn) + summary.run_tiles(run, log),
        notices=notices,
        has_steps=len(log) > 0,
        training=_training_pictures(run, log),
        verification=_verification_pictures(drawn),
        sheets=_sheets(run, [series[-1] for series in drawn.values()]),
        results=[result for series in history.values() for result in series],
        best_steps={name: summary.best(series).step for name, series in history.items()},
        rates=list(dict.fromkeys(rate for result in results for rate in result.tar_at_far)),
        now=summary.show_time(now.timestamp()),
    )


def _log_notices(log: MetricsLog) -> list[str]:
    notices = []
    if log.non_finite_losses:
        notices.append(f"The loss was not a finite number in {log.non_finite_losses:,} of {len(log):,} logged steps.")
    if log.rewinds:
        notices.append(
            f"The run went back to an earlier step {log.rewinds:,} time(s); "
            "what it repeated is shown once, as of the last time."
        )
    if log.unreadable_lines:
        notices.append(f"{log.unreadable_lines:,} line(s) of metrics.jsonl could not be read and were left out.")
    return notices


def _by_set(run: ResolvedRun, results: Sequence[StoredResult]) -> dict[str, list[StoredResult]]:
    """Set -> its results by step; sets in the order of the configuration, others after them."""
    names = run.set_names
    order = {name: position for position, name in enumerate(names)}
    history: dict[str, list[StoredResult]] = {}
    for result in sorted(results, key=lambda result: (order.get(result.name, len(names)), result.name, result.step)):
        history.setdefault(result.name, []).append(result)
    return history


def _training_pictures(run: ResolvedRun, log: MetricsLog) -> list[Picture]:
    is_sface = run.loss_name in ("sface", "")
    with drawing_style():
        pictures = [
            training_charts.loss_chart(log, is_sface=is_sface),
            training_charts.angle_chart(log, a=run.loss_angle("a"), b=run.loss_angle("b")),
            training_charts.learning_rate_chart(log),
            training_charts.speed_chart(log),
            head_chart.head_chart(log, tolerance=run.number("head", "tolerance")),
        ]
    return [picture for picture in pictures if picture is not None]


def _verification_pictures(history: dict[str, list[StoredResult]]) -> list[Picture]:
    latest = {name: series[-1] for name, series in history.items()}
    with drawing_style():
        pictures = [
            verification_charts.accuracy_chart(history),
            verification_charts.roc_chart(latest),
            *(verification_charts.score_chart(result) for result in latest.values()),
        ]
    return [picture for picture in pictures if picture is not None]


def _sheets(run: ResolvedRun, latest: Sequence[StoredResult]) -> list[PairSheet]:
    count = max(2, min(12, _PAIRS_ON_PAGE // max(1, 2 * len(latest))))
    return [worst_pairs(result, run.pairs_path(result.name), count) for result in latest]


def _write_whole(path: Path, page: str) -> None:
    try:
        write_file(path, page.encode("utf-8", errors="replace"))  # names may hold lone surrogates
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be written ({reason}); choose another --output") from error
