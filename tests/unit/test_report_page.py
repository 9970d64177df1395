"""The page as a whole: complete, self-contained, escaped, and honest about what is missing."""

import argparse
import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.pairs import write_pairs
from trainer.commands import report as command
from trainer.errors import ConfigError
from trainer.evaluation.store import StoredResult
from trainer.report import write_report
from trainer.report.faces import worst_pairs

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
PAIRS = 23
EVIL = "<script>alert('x')</script>"
CONFIG = """
[run]
output = "runs/first"
name = "first run"
device = "cpu"
[data]
records = ["{folder}/train.rec"]
[backbone]
name = "mobilefacenet"
[head]
loss = "sface"
tolerance = 1e-3
a = 0.90
b = 1.20
[train]
steps = 40
[evaluation]
pairs = [{pairs}]
"""


class Page(HTMLParser):
    """What a browser would load and say: every picture, every tag, the visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def write_run(folder: Path, *pairs: Path, steps: int = 40, config: str = CONFIG) -> Path:
    folder.mkdir()
    (folder / "run.toml").write_text(
        config.format(folder=folder.parent, pairs=", ".join(json.dumps(str(path)) for path in pairs))
    )
    lines = []
    for step in range(1, steps + 1):
        dense = step < 9
        lines.append(
            {
                "time": 1.76e9 + step, "step": step, "epoch": step / 7, "samples": 96 * step,
                "loss": -3.0 - step, "loss_intra": -4.0 - step, "loss_inter": 1.0,
                "theta_positive": 1.4 - 0.01 * step, "theta_negative": 1.55, "theta_negative_std": 0.1,
                "active_pairs": 960, "mode": "dense" if dense else "screened", "cut": None if dense else 2e-4,
                "error": 0.0 if dense else 7e-4, "bytes_moved": 400_000, "learning_rate": 0.1,
                "images_per_second": 96.0, "step_seconds": 1.0, "world_size": 2, "global_batch": 96,
                "phase_seconds": {"data": 0.1, "forward": 0.2, "head": 0.3, "backward": 0.3, "optimizer": 0.1},
            }
        )  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_evaluation(run: Path, step: int, name: str, *, accuracy: float = 0.8, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    same = np.arange(PAIRS) % 2 == 0
    scores = np.where(same, rng.normal(0.5, 0.2, PAIRS), rng.normal(0.1, 0.2, PAIRS)).astype(np.float32)
    folder = run / "evaluations" / f"step_{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "step": step, "name": name, "pairs": PAIRS, "accuracy_mean": accuracy, "accuracy_std": 0.02,
        "threshold": 0.3, "auc": 0.9, "equal_error_rate": 0.15, "tar_at_far": {"1e-1": 0.5, "1e-2": None},
        "roc": {"far": [0.0, 0.0, 0.1, 0.4, 1.0], "tar": [0.0, 0.2, 0.5, 0.9, 1.0]},
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(content))
    np.savez(folder / f"{name}.npz", scores=scores, same=same)


def write_faces(path: Path, *, same: np.ndarray | None = None, broken: bool = False) -> Path:
    jpegs = []
    for number in range(2 * PAIRS):
        buffer = io.BytesIO()
        Image.new("RGB", (112, 112), (5 * number, 90, 200)).save(buffer, "JPEG")
        jpegs.append(b"no picture at all" if broken else buffer.getvalue())
    write_pairs(path, jpegs, np.arange(PAIRS) % 2 == 0 if same is None else same)
    return path


def report_of(run: Path) -> Page:
    return Page(write_report(run, now=NOW))


def test_full_run(tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "devtest.bin")
    run = write_run(tmp_path / "run", faces)
    for step, accuracy in ((20, 0.91), (40, 0.87)):
        write_evaluation(run, step, "devtest", accuracy=accuracy, seed=step)
    (tmp_path / "property").write_text("4038,112,112")
    page = report_of(run)

    for said in ("first run", "All 40 steps done.", "4,038 identities, about 672 images", "mobilefacenet", "87.00%",
                 "best 91.00% at step 20", "TAR at FAR 1e-1", "96", "not the integral of its gradient",
                 "2026-01-02 03:04 UTC", "80.0% of logged steps screened", "name = \"first run\""):  # fmt: skip
        assert said in page.text, said
    charts = [image for image in page.images if (image["src"] or "").startswith("data:image/svg+xml")]
    shown_faces = [image for image in page.images if (image["src"] or "").startswith("data:image/jpeg")]
    assert len(charts) == 8  # accuracy, ROC, scores; loss, angles, learning rate, speed, head
    assert len(shown_faces) == 2 * (12 + 11)  # all 23 pairs: 12 same, 11 different
    assert all(image["alt"] for image in page.images)
    for chart in charts:
        ET.fromstring(base64.b64decode((chart["src"] or "").split(",")[1]))


def test_page_loads_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_faces(tmp_path / "devtest.bin"))
    write_evaluation(run, 40, "devtest")
    page = report_of(run)
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "url(" not in (run / "report.html").read_text()


def test_worst_pairs_are_ordered_and_marked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_faces(tmp_path / "devtest.bin"))
    write_evaluation(run, 40, "devtest", seed=3)
    stored = np.load(run / "evaluations" / "step_00000040" / "devtest.npz")
    rejects = np.sort(stored["scores"][stored["same"]])
    accepts = np.sort(stored["scores"][~stored["same"]])[::-1]
    html = write_report(run, now=NOW).read_text()
    sheet = html[html.index("<h2>Worst pairs") : html.index("<h2>Evaluations")]
    shown = [float(score) for score in re.findall(r"<span>(-?\d\.\d{3})</span>", sheet)]
    np.testing.assert_allclose(shown, np.concatenate([rejects[:12], accepts[:12]]), atol=6e-4)
    errors = [(rejects[:12] < 0.3).sum(), (accepts[:12] >= 0.3).sum()]
    assert sheet.count('<li class="error">') == sum(errors) > 0
    assert f"{errors[0]} of 12 same pairs are rejected and {errors[1]} of 11 different" in sheet


def test_threshold_is_not_rounded_to_a_score() -> None:
    score = np.float32(0.3)
    result = StoredResult(
        step=1, name="x", pairs=3, accuracy_mean=1.0, accuracy_std=0.0, threshold=float(score) + 1e-9, auc=1.0,
        equal_error_rate=0.0, tar_at_far={}, roc_far=np.array([0.0, 1.0]), roc_tar=np.array([1.0, 1.0]),
        scores=np.array([score, 0.9, score], dtype=np.float32), same=np.array([False, True, True]),
    )  # fmt: skip
    sheet = worst_pairs(result, None, 4)
    assert (sheet.accept_errors, sheet.reject_errors) == (0, 1)


def test_run_that_has_just_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=0)
    (run / "metrics.jsonl").unlink()
    page = report_of(run)
    assert "No step has been logged yet." in page.text
    assert "No evaluation yet." in page.text
    assert "No steps logged yet" in page.text
    assert not page.images


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_run_of_a_few_steps(tmp_path: Path, steps: int) -> None:
    page = report_of(write_run(tmp_path / "run", steps=steps))
    assert f"{steps} of 40 steps done" in page.text
    assert len(page.images) == 5


def test_metrics_without_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"step": 5}\n{"step": 6, "loss": NaN, "error": 0, "active_pairs": 3}\n')
    page = report_of(run)
    assert not page.images
    assert "hold none of the figures" in page.text
    assert "not a finite number in 1 of 2" in page.text


def test_dense_head_has_no_panels_for_cut_and_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=8)
    page = report_of(run)
    head = next(image for image in page.images if "Active pairs" in (image["alt"] or ""))
    assert "cut no values" in (head["alt"] or "")
    assert "0.0% of logged steps screened" in (head["alt"] or "")


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    config = CONFIG.replace("first run", EVIL).replace("mobilefacenet", "$\\\\frac{{" + EVIL)
    run = write_run(tmp_path / "run", config=config)
    for number, name in enumerate(("_$x", "$\\frac{", "面 <b>", "__")):
        write_evaluation(run, 40, name, seed=number)
    page = report_of(run)
    assert "script" not in page.tags
    assert "<b>" not in (run / "report.html").read_text()
    assert EVIL in page.text
    assert "面 <b>" in page.text


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("unlisted", "lists no pairs file of this name"),
        ("gone", "is gone"),
        ("other", "holds other pairs than were evaluated"),
        ("corrupt", "cannot be read"),
    ],
)
def test_faces_that_cannot_be_shown(tmp_path: Path, state: str, said: str) -> None:
    path = tmp_path / "devtest.bin"
    if state == "other":
        write_faces(path, same=np.ones(PAIRS, dtype=bool))
    elif state == "corrupt":
        path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    run = write_run(tmp_path / "run", *([] if state == "unlisted" else [path]))
    write_evaluation(run, 40, "devtest")
    page = report_of(run)
    assert said in page.text
    assert "same pairs are rejected" in page.text
    assert not [image for image in page.images if "jpeg" in (image["src"] or "")[:20]]


def test_faces_that_are_no_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_faces(tmp_path / "devtest.bin", broken=True))
    write_evaluation(run, 40, "devtest")
    assert report_of(run).text.count("not a picture") == 2 * 23


def test_evaluation_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_evaluation(run, 40, "devtest")
    (run / "evaluations" / "step_00000040" / "devtest.json").write_text("{")
    page = report_of(run)
    assert "evaluations cannot be read" in page.text
    assert len(page.images) == 5


def test_many_sets_and_evaluations_stay_small(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_faces(tmp_path / "set_00.bin"))
    for number in range(14):
        write_evaluation(run, 40, f"set_{number:02d}", seed=number)
    page = report_of(run)
    assert "Charts and faces are shown for 12 of 14 sets" in page.text
    assert "set_13" in page.text
    assert (run / "report.html").stat().st_size < 3_000_000


def test_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_evaluation(run, 40, "devtest")
    first = write_report(run, tmp_path / "first.html", now=NOW).read_bytes()
    assert write_report(run, tmp_path / "second.html", now=NOW).read_bytes() == first


@pytest.mark.parametrize("content", [None, b"[run", b"\xff\xfe", b"x = " + b"[" * 100_000, b"#" * (1 << 21)])
def test_folder_that_is_no_run(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml") as raised:
        write_report(tmp_path, now=NOW)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("content", ["", "run = 3\nhead = 'sface'\ndata = []\ntrain = {steps = 'many'}"])
def test_configuration_of_another_shape(tmp_path: Path, content: str) -> None:
    run = write_run(tmp_path / "odd <name>")
    (run / "run.toml").write_text(content)
    assert "odd <name>" in report_of(run).text


@pytest.mark.parametrize(("epochs", "said"), [(2.0, "All 14 steps done."), (3.1, "14 of 22 steps done (64%)")])
def test_length_given_in_epochs(tmp_path: Path, epochs: float, said: str) -> None:
    run = write_run(tmp_path / "run", steps=14, config=CONFIG.replace("steps = 40", f"epochs = {epochs}"))
    page = report_of(run)
    assert said in page.text


def test_run_without_a_name_goes_by_its_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "third try", config=CONFIG.replace('name = "first run"', ""))
    assert "third try" in report_of(run).text


def test_missing_folder_and_bad_output(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        write_report(tmp_path / "nowhere", now=NOW)
    run = write_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="is a folder"):
        write_report(run, tmp_path, now=NOW)
    with pytest.raises(ConfigError, match="no such folder"):
        write_report(run, tmp_path / "nowhere" / "page.html", now=NOW)


def test_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    target = tmp_path / "out" / "page.html"
    target.parent.mkdir()
    target.write_text("old")

    def refuse(self: Path, _target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ConfigError, match="No space left"):
        write_report(run, target, now=NOW)
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]
    assert target.read_text() == "old"


def test_command_prints_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["report", str(run), "--output", str(tmp_path / "page.html")])
    assert args.handler(args) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000
