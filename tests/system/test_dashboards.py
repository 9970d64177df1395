"""Dashboards against a real Prometheus that scrapes a live training of two ranks."""

import io
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import Finished, pfc, run, running, torchrun
from dashboard_metrics import metrics_of
from PIL import Image
from prometheus_server import free_ports, prometheus, wait_for
from small_faces import make_small_faces, write_run

from trainer.cli import main
from trainer.dashboards.grafana_file import SHIPPED, Dashboard, read_dashboards
from trainer.dashboards.prometheus import PrometheusClient
from trainer.dashboards.time_range import TimeRange
from trainer.dashboards.variables import built_in, of_dashboard, substitute

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not PROMETHEUS, reason="no prometheus: apt-get install prometheus"),
]

RANKS = 2
SCRAPE_SECONDS = 1.0
JOB = "faces.v1"
NAMES = ["data", "head", "one-job", "overview", "ranks"]


def configuration(base: int) -> str:
    """As operators write it: the labels that a rank serves itself win, those here are for a rank that serves none."""
    scrape = {
        "job_name": JOB,
        "honor_labels": True,
        "static_configs": [
            {"targets": [f"127.0.0.1:{base + rank}"], "labels": {"rank": str(rank)}} for rank in range(RANKS)
        ],
    }
    return json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]})


@dataclass(frozen=True)
class Live:
    """A training that runs, and the server that scrapes it."""

    process: subprocess.Popen[str]
    client: PrometheusClient
    job: str
    exporter: str

    def report(self, *arguments: str, cwd: Path) -> Finished:
        return run(pfc("report", "--prometheus", self.client.address, *arguments), cwd=cwd, deadline_seconds=180)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Warm: verified, with checkpoints, stragglers compared, on both ranks."""
    assert PROMETHEUS is not None
    folder = tmp_path_factory.mktemp("live")
    faces, base = make_small_faces(folder / "faces"), free_ports(RANKS)
    config = write_run(folder / "run.toml", output=folder / "run", faces=faces, steps=1_000_000, batch_size=5)
    overrides = [
        f"metrics.port={base}", "metrics.address=127.0.0.1", "evaluation.every_steps=20", "checkpoint.every_steps=15",
    ]  # fmt: skip
    command = torchrun(RANKS, "train", config, *(f"--set={override}" for override in overrides))
    (folder / "prometheus").mkdir()
    with (
        prometheus(PROMETHEUS, folder / "prometheus", targets=[], configuration_text=configuration(base)) as server,
        running(command, cwd=folder, printed=folder / "printed.txt") as process,
    ):

        def is_warm() -> bool:
            assert process.poll() is None, f"training ended early: {(folder / 'printed.txt').read_text()[-2000:]}"
            # Six scrapes after what is wanted: rates look back over four.
            wanted = (
                "pfc_checkpoint_seconds_count offset 6s >= 2",
                "pfc_own_step_seconds offset 6s > 0",
                "pfc_step offset 6s > 20 and on () pfc_verification_accuracy_ratio",
            )
            return all(len(server.query(expression)) == RANKS for expression in wanted)

        wait_for(is_warm, "checkpoints, verification and a comparison of ranks", deadline_seconds=180)
        client = PrometheusClient(f"http://{server.address}")
        (job,) = client.label_values("job", "pfc_step")
        yield Live(process, client, job, f"http://127.0.0.1:{base}")


def expressions(dashboard: Dashboard) -> list[tuple[str, str]]:
    """What asks, and its expression."""
    asked = [(f"{panel.title}, {target.ref}", target.expr) for panel in dashboard.panels for target in panel.targets]
    return asked + [(annotation.name, annotation.expr) for annotation in dashboard.annotations]


@pytest.mark.parametrize("name", NAMES)
def test_every_expression_has_data(live: Live, name: str) -> None:
    (dashboard,) = read_dashboards(SHIPPED, [name])

    def empty() -> list[str]:
        shown = TimeRange(time.time() - 60, time.time())
        values = of_dashboard(
            dashboard, built_in(shown, SCRAPE_SECONDS), jobs=[live.job], client=live.client, shown=shown
        )
        found = []
        for asks, expression in expressions(dashboard):
            series = live.client.over_time(
                substitute(expression, values), start=shown.start, end=shown.end, step=shown.step
            )
            if not any(np.isfinite(each.values).any() for each in series):
                found.append(f"{asks}: {expression}")
        return found

    # A busy machine may leave a gap of scrapes: asked again, not waited for.
    for _ in range(5):
        if not (left := empty()):
            break
    assert left == []


def test_no_expression_for_another_job(live: Live) -> None:
    """What the test above calls data is data of the job: for a name that is no job there is none."""
    (dashboard,) = read_dashboards(SHIPPED, ["one-job"])
    shown = TimeRange(time.time() - 60, time.time())
    values = of_dashboard(dashboard, built_in(shown, SCRAPE_SECONDS), jobs=["no"], client=live.client, shown=shown)
    for asks, expression in expressions(dashboard):
        asked = substitute(expression, values)
        found = live.client.over_time(asked, start=shown.start, end=shown.end, step=shown.step)
        assert found == [], asks


def test_every_metric_is_served(live: Live) -> None:
    served = set(live.client.label_values("__name__", '{__name__=~"pfc_.+|process_.+"}'))
    assert "pfc_step" in served
    named = {m for each in read_dashboards(SHIPPED, []) for _, e in expressions(each) for m in metrics_of(e)}
    assert named - served == set()


def test_pictures_of_all_dashboards(live: Live, tmp_path: Path) -> None:
    done = live.report("--output", "pictures", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == [f"pictures/{name}.png" for name in NAMES]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [f"{name}.png" for name in NAMES]
    for name in NAMES:
        picture = Image.open(io.BytesIO((tmp_path / "pictures" / f"{name}.png").read_bytes())).convert("RGB")
        assert picture.width > 1500
        assert picture.height > 1000
        assert len(picture.getcolors(1 << 24) or []) > 100, "lines, texts and their smooth edges"


def test_one_dashboard_of_a_named_job_in_a_named_range(live: Live, tmp_path: Path) -> None:
    done = live.report("--job", live.job, "--dashboard", "pfc-ranks", "--last", "90s", "--output", "x", cwd=tmp_path)
    assert (done.code, done.out) == (0, "x/ranks.png\n"), done.err


def test_bad_input_is_one_line(live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = f"http://someone:s3cret@127.0.0.1:{free_ports(1)}"
    stranger = live.exporter.replace("http://", "http://someone:s3cret@")
    for arguments, address, says in [
        (
            ["--job", "faces"],
            live.client.address,
            f"--job faces: unknown to {live.client.address}; it knows {live.job}",
        ),
        (["--from", "2020-01-01", "--to", "2020-01-02"], live.client.address, "no data of pfc_step"),
        ([], nobody, "cannot be reached (Connection refused)"),
        ([], stranger, "but not as a Prometheus server does"),
    ]:
        assert main(["report", "--prometheus", address, "--output", str(tmp_path / "x"), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("pfc: error: ")
        assert says in line
        assert "s3cret" not in line
        assert not (tmp_path / "x").exists()


def test_a_dashboard_of_the_users_own(live: Live, tmp_path: Path) -> None:
    """Also with an expression that is none: its panel says so, and the others are drawn."""
    (tmp_path / "mine").mkdir()
    panels = [
        {"type": "timeseries", "title": "speed", "targets": [{"expr": 'rate(pfc_steps_total{job="$job"}[1m])'}]},
        {"type": "timeseries", "title": "mistyped", "targets": [{"expr": "rate(pfc_steps_total"}]},
        {"type": "text", "title": "words"},
    ]
    variables = [{"name": "job", "type": "query", "query": "label_values(pfc_step, job)"}]
    (tmp_path / "mine" / "own.json").write_text(
        json.dumps({"title": "own", "panels": panels, "templating": {"list": variables}})
    )
    done = live.report("--dashboards", "mine", "--output", "drawn", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "drawn/own.png\n", "")
