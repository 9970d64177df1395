"""The study of label noise: conditions, candidates, intervals, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import RecordReader, RecordWriter
from partial_fc import ArcFace, CombinedMargin, CosFace, SFace
from trainer.config import Config, config_from
from trainer.errors import ConfigError
from trainer.evaluation.folds import fold_accuracy
from trainer.study.candidates import LOSSES, described, read_candidates, settings
from trainer.study.chart import noise_chart
from trainer.study.conditions import CLEAN, Condition, conditions_of, prepared
from trainer.study.intervals import difference, interval, judged
from trainer.study.noise_study import Findings, NoiseStudy, Request, Tuned
from trainer.study.page import study_page
from trainer.study.results import markdown, result_numbers, result_text

pytestmark = pytest.mark.unit


def base(tmp_path: Path, **head: object) -> Config:
    (tmp_path / "p.bin").write_bytes(b"")
    values: dict[str, Any] = {
        "run": {"output": str(tmp_path / "unused")},
        "data": {"records": str(tmp_path / "train.rec")},
        "head": {"a": 0.87, "b": 1.2, "scale": 32.0, **head},
        "train": {"steps": 4},
        "optimizer": {"lr": 0.2},
        "evaluation": {"pairs": [str(tmp_path / "p.bin")]},
        "metrics": {"port": 9500},
    }
    return config_from(values, "run")


def request(tmp_path: Path, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "config": base(tmp_path), "output": tmp_path / "study", "losses": LOSSES, "closed": [0.2], "opened": [],
        "distractors": None, "seeds": [0, 1], "candidates": None, "tuning_pairs": None, "tuning_seed": 9,
        "run_seconds": 60.0,
    }  # fmt: skip
    return Request(**(values | changes))


def study(tmp_path: Path, **changes: Any) -> NoiseStudy:
    return NoiseStudy(request(tmp_path, **changes), told=print, stopped=lambda: False)


def test_conditions_begin_with_clean_labels_and_rise() -> None:
    found = conditions_of([0.4, 0.2, 0.2], [0.025])
    assert [each.name for each in found] == ["clean", "closed_20", "closed_40", "open_2.5"]
    assert found[0] == CLEAN
    for share in (0.0, 1.0, -0.2, 20.0, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            conditions_of([share], [])


def test_noise_depends_on_the_seed_and_is_written_once(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    with RecordWriter(tmp_path / "clean" / "train.rec") as writer:
        for number in range(40):
            writer.write(number // 4, b"face %d" % number)
    records = tmp_path / "clean" / "train.rec"
    folders = [
        prepared(Condition("closed", 0.4), seed, records=records, distractors=None, folder=tmp_path / "data")
        for seed in (0, 1, 0)
    ]
    assert folders[0] == folders[2] != folders[1]
    clean, *noisy = (RecordReader(path).identities for path in (records, *folders[:2]))
    assert [int((each != clean).sum()) for each in noisy] == [16, 16]
    assert (noisy[0] != noisy[1]).any()
    assert prepared(CLEAN, 0, records=records, distractors=None, folder=tmp_path / "data") == records


def test_every_loss_is_what_its_name_says(tmp_path: Path) -> None:
    plain = base(tmp_path).to_dict()
    built = {loss: config_from(plain | settings(loss, {}, plain), loss).head.build() for loss in LOSSES}
    assert built == {
        "sface": SFace(scale=32.0, slope=80.0, a=0.87, b=1.2),
        "arcface": ArcFace(32.0, 0.5),
        "cosface": CosFace(32.0, 0.35),
        "softmax": CombinedMargin(32.0, m1=1.0, m2=0.0, m3=0.0),
    }
    assert type(built["softmax"]) is CombinedMargin
    changed = settings("arcface", {"head": {"margin": 0.3}, "optimizer": {"lr": 0.1}}, plain)
    assert (changed["head"]["margin"], changed["optimizer"]["lr"]) == (0.3, 0.1)
    assert described({"head": {"margin": 0.3}, "optimizer": {"lr": 0.1}}) == "head.margin = 0.3, optimizer.lr = 0.1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[sface]]\noptimizer.lr = 0.1\n", "arcface 0"),
        ("[[sface]]\n[[sface]]\n[[arcface]]\n[[cosface]]\n[[softmax]]\n", "sface 2, arcface 1"),
        ("[[sfaec]]\n", "'sfaec' is none of"),
        ("sface = 1\n", r"\[\[sface\]\]"),
        ("[[sface]]\nhead.loss = 'arcface'\n", "not its loss"),
        ("[[sface]]\ntrain.steps = 4\n", "'train' of 'sface'"),
        ("[[sface\n", "cannot be read as TOML"),
    ],
)
def test_candidates_that_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "candidates.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_candidates(path, LOSSES)


def choice(tmp_path: Path, line: str = "optimizer.lr = 0.1") -> Path:
    path = tmp_path / "candidates.toml"
    path.write_text("".join(f"[[{loss}]]\n[[{loss}]]\n{line}\n" for loss in LOSSES))
    return path


def test_what_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    pairs, other = tmp_path / "p.bin", tmp_path / "q.bin"
    other.write_bytes(b"")
    candidates = choice(tmp_path)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"opened": [0.2]}, "--distractors"),
        ({"candidates": candidates}, "--tuning-pairs"),
        ({"candidates": candidates, "tuning_pairs": pairs}, "those of evaluation.pairs"),
        ({"candidates": candidates, "tuning_pairs": tmp_path / "none.bin"}, "no such pairs file"),
        ({"candidates": choice(tmp_path, "optimizer.rl = 0.1"), "tuning_pairs": other}, "optimizer.rl"),
        ({"candidates": tmp_path / "none.toml"}, "none.toml"),
        ({"seeds": [9]}, "--tuning-seed 9"),
        ({"output": tmp_path / "full"}, "mine.txt"),
        ({"output": pairs}, "is a file"),
        ({"config": config_from(base(tmp_path).to_dict() | {"evaluation": {}}, "run")}, "evaluation.pairs is missing"),
    ]
    for changes, complaint in bad:
        if changes.get("candidates") == candidates:
            choice(tmp_path, "optimizer.rl = 0.1" if "rl" in complaint else "optimizer.lr = 0.1")
        with pytest.raises(ConfigError, match=complaint):
            study(tmp_path, **changes)
    assert not (tmp_path / "study").exists()


def test_judging_is_the_ten_fold_protocol() -> None:
    draw = np.random.default_rng(1)
    same = np.arange(600) % 2 == 0
    scores = (draw.normal(size=600) + 1.5 * same).astype(np.float32)
    right = judged(scores, same)
    assert right.mean() == pytest.approx(fold_accuracy(scores.astype(np.float64), same).mean)


def test_intervals_of_known_spread() -> None:
    """One seed: the binomial's 1.96 sigma; seeds that differ widen it; the same values, the same interval."""
    draw = np.random.default_rng(2)
    right = draw.random((1, 4000)) < 0.8
    found = interval(right)
    sigma = float(np.sqrt(0.8 * 0.2 / 4000))
    assert found.mean == pytest.approx(right.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * sigma, rel=0.1)
    apart = np.stack([draw.random(4000) < share for share in (0.6, 0.8, 0.9)])
    assert interval(apart).high - interval(apart).low > 5 * (found.high - found.low)
    assert interval(apart) == interval(apart)


def test_differences_are_paired() -> None:
    """Two losses that err on the same pairs but for one in a hundred: the difference is known far better than each."""
    draw = np.random.default_rng(3)
    one = [draw.random(4000) < 0.7 for _ in range(2)]
    other = [each.copy() for each in one]
    for each in other:
        each[np.flatnonzero(each)[:40]] = False
    found = difference(one, other)
    assert found.mean == pytest.approx(0.01)
    assert 0 < found.low < found.high < 0.015
    assert difference(one, one) == difference(other, other)
    assert difference(one, one).high == 0


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    draw = np.random.default_rng(5)
    asked = request(tmp_path, losses=("sface", "softmax"))
    conditions = conditions_of([0.2, 0.4], [0.4])
    share = {"sface": 0.8, "softmax": 0.7}
    right = {
        (loss, each.name): [draw.random(500) < (share[loss] if each.share < 0.4 else 0.6) for _ in asked.seeds]
        for loss in asked.losses
        for each in conditions
    }
    accuracy = {key: [float(each.mean()) for each in values] for key, values in right.items()}
    tuned = {
        "sface": Tuned({"optimizer": {"lr": 0.3}}, [{}, {"optimizer": {"lr": 0.3}}], [0.5, 0.6]),
        "softmax": Tuned({}, [{}, {"optimizer": {"lr": 0.3}}], [0.5, 0.4]),
    }
    return Findings(asked, tmp_path / "<b>.bin", conditions, tuned, accuracy, right)


def test_results_say_what_was_found_and_no_more(findings: Findings) -> None:
    numbers = result_numbers(findings)
    assert json.loads(result_text(numbers)) == numbers
    table = markdown(numbers)
    assert "clean: sface is better than softmax." in table
    assert "closed set, 40%: sface is not to be told from softmax." in table
    assert "sface: optimizer.lr = 0.3" in table
    cell = next(c for c in numbers["accuracy"] if (c["loss"], c["noise"], c["share"]) == ("softmax", "closed", 0.2))
    assert cell["mean"] == pytest.approx(np.mean(findings.accuracy["softmax", "closed_20"]))
    assert cell["low"] < cell["mean"] < cell["high"]


def test_who_loses_is_told_so(findings: Findings) -> None:
    for each in findings.conditions:
        sface, softmax = ("sface", each.name), ("softmax", each.name)
        findings.right[sface], findings.right[softmax] = findings.right[softmax], findings.right[sface]
    assert "clean: sface is worse than softmax." in markdown(result_numbers(findings))


def test_picture_and_page(findings: Findings) -> None:
    numbers = result_numbers(findings)
    picture = noise_chart(numbers)
    assert picture.startswith(b"\x89PNG")
    assert picture == noise_chart(numbers), "the same numbers, the same picture"
    page = study_page(numbers, picture)
    assert "<b>.bin" not in page
    assert "closed set, 20%" in page
    assert "http" not in page.replace("http-equiv", ""), "nothing to load"


def test_sface_alone_has_nobody_to_be_compared_with(findings: Findings) -> None:
    numbers = result_numbers(findings) | {"difference": []}
    assert "Differences" not in markdown(numbers)
    assert "Differences" not in study_page(numbers, noise_chart(numbers))
