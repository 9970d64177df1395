"""From what was asked for to pictures in a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.pending_file import write_file
from trainer.dashboards.answers import marks, panel_answers
from trainer.dashboards.grafana_file import SHIPPED, read_dashboards
from trainer.dashboards.page import draw_page
from trainer.dashboards.prometheus import PrometheusClient
from trainer.dashboards.time_range import TimeRange, time_range
from trainer.dashboards.variables import built_in, of_dashboard, some
from trainer.errors import ConfigError

DEFAULT_SCRAPE_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``pfc report --prometheus`` was asked for; None where nothing was said."""

    address: str
    output: Path
    job: str | None = None
    names: tuple[str, ...] = ()
    folder: Path | None = None
    start: str | None = None
    end: str | None = None
    last: str | None = None


def draw_dashboards(request: Request, *, now: float) -> Iterator[Path]:
    """Draw each dashboard to ``output``/NAME.png; yields the paths as they are written.

    Raises ConfigError for whatever cannot be used: see its one line.
    """
    asked = time_range(start=request.start, end=request.end, last=request.last, now=now)
    if request.output.exists() and not request.output.is_dir():
        raise ConfigError(f"--output {request.output}: not a folder; with --prometheus it takes several pictures")
    dashboards = read_dashboards(request.folder or SHIPPED, list(request.names))
    client = PrometheusClient(request.address)
    jobs = _jobs(client, request.job, asked)
    job = jobs[0] if len(jobs) == 1 else None
    selector = "pfc_step" if job is None else f"pfc_step{{job={_quoted(job)}}}"
    shown, last = _with_data(client, selector, asked, given=bool(request.start or request.end or request.last))
    values = built_in(shown, _scrape_seconds(client, selector, last))
    chosen = [
        (dashboard, of_dashboard(dashboard, values, jobs=jobs, client=client, shown=shown)) for dashboard in dashboards
    ]
    request.output.mkdir(parents=True, exist_ok=True)
    for dashboard, own in chosen:
        found = [panel_answers(panel, own, client=client, shown=shown, last=last) for panel in dashboard.panels]
        moments = marks(dashboard, own, client=client, shown=shown)
        path = request.output / f"{dashboard.name}.png"
        write_file(path, draw_page(dashboard, found, moments, job=job, shown=shown))
        yield path


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _jobs(client: PrometheusClient, job: str | None, asked: TimeRange) -> list[str]:
    """The job that was named, or all that there are in the range."""
    known = client.label_values("job", "pfc_step")
    if not known:
        raise ConfigError(f"{client.address} knows no job of pfc: does it scrape the ranks ([metrics] port)?")
    if job is None:
        return client.label_values("job", "pfc_step", start=asked.start, end=asked.end)
    if job not in known:
        raise ConfigError(f"--job {job}: unknown to {client.address}; it knows {some(known)}")
    return [job]


def _with_data(client: PrometheusClient, selector: str, asked: TimeRange, *, given: bool) -> tuple[TimeRange, float]:
    """The range to show and the last moment in it that has data; cut to where there is data unless it was ``given``."""
    counted = client.over_time(f"count({selector})", start=asked.start, end=asked.end, step=asked.step)
    if not counted or not counted[0].times.size:
        raise ConfigError(f"no data of {selector} between {asked}: give another --from and --to, or a longer --last")
    first, last = float(counted[0].times[0]), float(counted[0].times[-1])
    if given:
        return asked, last
    return TimeRange(max(asked.start, first - asked.step), min(asked.end, last + asked.step)), last


def _scrape_seconds(client: PrometheusClient, selector: str, last: float) -> float:
    """How often the ranks are scraped, from the samples themselves: a server may not tell its configuration."""
    gaps = [np.median(np.diff(each.times)) for each in client.at(f"{selector}[5m]", last) if each.times.size > 2]
    return float(np.round(max(gaps), 1)) if gaps else DEFAULT_SCRAPE_SECONDS
