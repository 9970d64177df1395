"""Panels as pictures: whatever a dashboard and a server hold, it is drawn, and nothing lies on anything else."""

import io
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.dashboards import page
from trainer.dashboards.answers import Answer, Mark, PanelAnswers
from trainer.dashboards.curves import _buckets, draw_lines
from trainer.dashboards.figures import table_cells
from trainer.dashboards.grafana_file import (
    SHIPPED,
    Annotation,
    Dashboard,
    Panel,
    Target,
    read_dashboard,
    read_dashboards,
)
from trainer.dashboards.look import Sheet, printable
from trainer.dashboards.page import draw_page
from trainer.dashboards.prometheus import Series
from trainer.dashboards.time_range import TimeRange
from trainer.errors import ConfigError
from trainer.report.drawing import drawing_style

pytestmark = pytest.mark.unit

SHOWN = TimeRange(1_769_868_000.0, 1_769_868_600.0)
TIMES = np.arange(SHOWN.start, SHOWN.end, SHOWN.step)
A = Target("A", "x", "", instant=False)
EVIL = ["$\\frac{$", "_hidden", "名前", "x" * 400, "line\nbreak", ""]
KINDS = ("timeseries", "stat", "bargauge", "table", "heatmap", "text")


def series(values: object, **labels: str) -> Series:
    column = np.broadcast_to(np.asarray(values, dtype=np.float64), TIMES.shape)
    return Series(labels, TIMES, column)


def answers(panel: Panel, *found: tuple[str, Series]) -> PanelAnswers:
    return PanelAnswers(panel, [Answer(A, list(found))])


def drawn(*found: PanelAnswers, marks: tuple[Mark, ...] = (), title: str = "t") -> Image.Image:
    dashboard = Dashboard("d", "d", title, tuple(each.panel for each in found), (), ())
    picture = draw_page(dashboard, found, marks, job=title, shown=SHOWN)
    return Image.open(io.BytesIO(picture)).convert("RGB")


def panel(kind: str = "timeseries", **options: object) -> Panel:
    return Panel(**({"title": "p", "kind": kind, "place": (0, 0, 12, 8)} | options))  # type: ignore[arg-type]


VALUES = {
    "zero": 0.0,
    "tiny": 1e-300,
    "huge": -1e300,
    "constant": 5.0,
    "nan": np.nan,
    "inf": np.inf,
    "slope": np.linspace(-1, 1, TIMES.size),
    "gaps": np.where(np.arange(TIMES.size) % 3 == 0, 1.0, np.nan),
}
OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "log": {"log": True},
    "stack": {"stack": True, "low": 0.0},
    "odd": {"low": 2.0, "high": 1.0},
}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("options", OPTIONS)
def test_any_values_are_drawn(values: str, options: str) -> None:
    several = [(f"s{number}", series(VALUES[values], le=str(number))) for number in range(3)]
    panels = [panel(kind, place=(4 * x, 0, 4, 8), **OPTIONS[options]) for x, kind in enumerate(KINDS)]
    picture = drawn(*(answers(each, *several) for each in panels))
    for x in range(len(KINDS)):
        left = 30 + 288 * x
        inside = picture.crop((left, 110, left + 250, picture.height - 20))
        assert np.asarray(inside.convert("L")).std() > 0, f"nothing in the panel of a {KINDS[x]}"


@pytest.mark.parametrize("kind", KINDS)
def test_any_names_and_many_series(kind: str) -> None:
    many = [(f"{name} {number}", series(number, le=str(number), name=name)) for number in range(60) for name in EVIL]
    mark = Mark(Annotation("名 $x$", "no colour", "y", True), [SHOWN.start + 1, SHOWN.end - 1])
    assert drawn(answers(panel(kind, title="名 $x$ " * 40), *many), marks=(mark,), title="$名\\frac" * 30).width > 1500
    assert drawn(answers(panel(kind, place=(23, 0, 1, 2)), *many)).width > 1500


def test_a_panel_without_data_or_with_a_refused_expression_says_so() -> None:
    empty, refused = drawn(answers(panel())), drawn(PanelAnswers(panel(), [], "A: parse error"))
    assert empty.tobytes() != refused.tobytes()
    assert len(empty.getcolors(1 << 24) or []) > 10


def test_lines_thresholds_and_marks_are_there() -> None:
    """Each in its own colour: red leaves green and blue behind, purple leaves green behind."""
    limited = panel(thresholds=((0.5, "red"),), threshold_lines=True)
    mark = Mark(Annotation("started", "purple", "y", True), [SHOWN.start + 100])
    curve = ("a", series(0.4))
    plain, line = drawn(answers(panel(), curve)), drawn(answers(limited, curve))
    marked = drawn(answers(panel(), curve), marks=(mark,))
    assert [pixels_where(picture, over=0, than=(1, 2)) > 20 for picture in (plain, line, marked)] == [
        False,
        True,
        False,
    ]
    assert pixels_where(marked, over=0, than=(1,)) > 20 > pixels_where(plain, over=0, than=(1,))


def pixels_where(picture: Image.Image, *, over: int, than: tuple[int, ...]) -> int:
    """How many pixels below the header have clearly more of one colour channel than of others."""
    pixels = np.asarray(picture.crop((0, 62, picture.width, picture.height)), dtype=np.int64)
    return int(np.all([pixels[..., over] - pixels[..., other] > 25 for other in than], axis=0).sum())


def test_counts_of_buckets_are_not_cumulative() -> None:
    x = np.arange(SHOWN.start, SHOWN.end + 0.5 * SHOWN.step, SHOWN.step)
    below = {"+Inf": 9.0, "0.5": 2.0, "1": 9.0, "0.1": 0.0, "2": 9.0}
    found = [series(count, le=bound) for bound, count in below.items()]
    bounds, counts = _buckets(found, x, SHOWN)
    assert bounds == [0.1, 0.5, 1, 2]
    assert counts[:, 0].tolist() == [0, 2, 7, 0]


def test_a_table_joins_by_labels() -> None:
    info, steps = Target("A", "i", "", instant=True), Target("B", "s", "", instant=True)
    heads = {"job": "Job", "size": "World", "Value #B": "Step"}
    table = panel("table", heads=heads, hidden=frozenset({"Time", "Value #A"}))
    found = PanelAnswers(
        table,
        [
            Answer(info, [("", series(1, job="a", size="2")), ("", series(1, job="b", size="4"))]),
            Answer(steps, [("", series(7, job="b")), ("", series(8, job="c"))]),
        ],
    )
    assert table_cells(found) == (["Job", "World", "Step"], [["a", "2", "-"], ["b", "4", "7"], ["c", "-", "8"]])


def test_the_legend_lies_on_nothing() -> None:
    """No two texts of a crowded page share a pixel."""
    many = [(f"rank {number}", series(number * 1e-3)) for number in range(40)]
    panels = [panel(place=(x, y, 8, 8)) for x in (0, 8, 16) for y in (0, 8)]
    with drawing_style():
        sheet = Sheet(10, 10)
        texts = [sheet.fitted(1, 1 + number, "w" * 300, 2.0, fontsize=9) for number in range(4)]
        assert all(sheet.text_width(text) < 2.4 for text in texts)
    with drawing_style():
        sheet = Sheet(18, 8)
        for each in panels:
            draw_lines(sheet, page._box(sheet, each).inside(top=0.3), answers(each, *many), (), SHOWN)
        sheet.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in sheet.figure.texts]
        boxes += [
            label.get_window_extent()
            for axes in sheet.figure.axes
            for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
        ]
    assert len(boxes) > 100
    overlapping = [(one, other) for one, other in combinations(boxes, 2) if one.shrunk(0.9, 0.8).overlaps(other)]
    assert overlapping == []


def test_printable_is_one_line_of_known_letters() -> None:
    assert printable("a\n b\x00名µ") == "a b??µ"


def test_the_shipped_dashboards_are_read_whole() -> None:
    found = read_dashboards(SHIPPED, [])
    assert [dashboard.name for dashboard in found] == ["data", "head", "one-job", "overview", "ranks"]
    for dashboard in found:
        written = json.loads((SHIPPED / f"{dashboard.name}.json").read_text())
        assert len(dashboard.panels) == len(written["panels"])
        assert {each.kind for each in dashboard.panels} <= {"row", *KINDS} - {"text"}
        assert all(each.targets for each in dashboard.panels if each.kind != "row")
        assert [each.name for each in dashboard.variables][:2] == ["datasource", "job"]
        assert len(dashboard.annotations) == 3
    assert [each.name for each in read_dashboards(SHIPPED, ["pfc-head", "data", "head"])] == ["head", "data"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no dashboard of Grafana"),
        ('{"panels": {}}', "no dashboard of Grafana"),
        ('{"panels": [{"gridPos": {"y": 9000}}]}', "taller than 1000"),
        ("\udcff", "not JSON"),
    ],
)
def test_files_that_are_no_dashboards(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=problem) as told:
        read_dashboards(tmp_path, [])
    assert str(told.value).startswith(str(path))


def test_folders_without_dashboards(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=r"no folder with Grafana's \.json files"):
            read_dashboards(folder, [])


def test_odd_values_become_defaults(tmp_path: Path) -> None:
    defaults = {"unit": [], "min": "0", "decimals": 1e30, "thresholds": {"steps": [{}, 3]}}
    odd = {
        "type": 3,
        "title": None,
        "targets": [7, {"expr": None}, {"expr": "x", "hide": True}],
        "gridPos": {"w": "wide"},
        "fieldConfig": {"defaults": defaults},
    }
    folded = {"type": "row", "gridPos": {"x": 30, "w": 99}, "panels": [{"type": "graph", "targets": [{"expr": "y"}]}]}
    (tmp_path / "odd.json").write_text(json.dumps({"dashboard": {"panels": [odd, None, folded]}}))
    read = read_dashboard(tmp_path / "odd.json")
    assert [each.kind for each in read.panels] == ["", "row", "timeseries"]
    assert [len(each.targets) for each in read.panels] == [0, 0, 1]
    assert read.panels[0].place == (0, 0, 12, 8)
    assert read.panels[1].place == (23, 8, 1, 8)
    assert read.panels[2].place[1] >= 16, "below what comes before it"
