"""The newcomer's journey in small: draw, inspect, train on two ranks, evaluate, report."""

import json
from pathlib import Path

import pytest
import torch
from commands import pfc, run, torchrun

from trainer.checkpoint import load_backbone

pytestmark = pytest.mark.integration

CONFIG = """
[run]
output = "run"
world_size = 2
device = "cpu"
timeout_seconds = 120
[data]
records = "faces"
image_size = 32
batch_size = 32
[backbone]
embedding_dim = 128
[head]
a = 0.90
b = 1.20
[optimizer]
lr = 0.02
[schedule]
warmup = 10
[train]
steps = 130
[evaluation]
pairs = ["faces/verification.bin"]
at_start = true
[log]
every_steps = 5
"""


def test_two_ranks_learn_to_verify_unseen_identities(tmp_path: Path) -> None:
    synth = ["--identities", "60", "--images-per-identity", "12", "--unseen-identities", "60", "--pairs", "400"]
    drawn = run(pfc("data", "synth", "faces", *synth, "--image-size", "48", "--workers", "2"), cwd=tmp_path)
    assert drawn.code == 0, drawn.err
    inspected = run(pfc("data", "inspect", "faces", "--sheet", "sheet.png"), cwd=tmp_path)
    assert inspected.code == 0, inspected.err
    assert "720" in inspected.out
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")

    (tmp_path / "run.toml").write_text(CONFIG)
    trained = run(torchrun(2, "train", "run.toml"), cwd=tmp_path, deadline_seconds=280)
    assert trained.code == 0, trained.err
    accuracy = {
        int(path.parent.name.removeprefix("step_")): json.loads(path.read_text())["accuracy_mean"]
        for path in (tmp_path / "run" / "evaluations").glob("step_*/verification.json")
    }
    assert accuracy.keys() == {0, 130}
    # 400 pairs: the accuracy of a coin has a standard deviation of 2.5 points.
    assert accuracy[130] > 0.5 + 4 * 0.025, "better than chance"
    assert accuracy[130] > accuracy[0] + 0.03, "better than the same network untrained"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["theta_positive"] < lines[0]["theta_positive"] - 0.1, "embeddings came nearer to their centers"
    assert lines[-1]["step"] == 130

    for rank in (0, 1):
        log = (tmp_path / "run" / "logs" / f"rank_{rank:04d}.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in log]
        assert {event["rank"] for event in events} == {rank}
        assert next(event["event"] for event in events if event["event"] != "step") == "started"
        assert events[-1]["event"] == "finished"

    evaluated = run(pfc("eval", "run", "--pairs", "faces/verification.bin", "--json"), cwd=tmp_path)
    assert evaluated.code == 0, evaluated.err
    (found,) = json.loads(evaluated.out)
    assert found["accuracy_mean"] == pytest.approx(accuracy[130], abs=1e-6), "one process finds what two ranks found"
    trained = load_backbone(tmp_path / "run", torch.device("cpu"))
    assert trained.step == 130
    assert all(torch.isfinite(value).all() for value in trained.module.state_dict().values())

    reported = run(pfc("report", "run"), cwd=tmp_path)
    assert reported.code == 0, reported.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert reported.out.strip().endswith("report.html")
    assert "<script src" not in page
    assert "http-equiv" in page
    assert len(page) < 3_000_000
