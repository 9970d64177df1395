"""``make million``'s script at a small size: draws, trains, kills, continues on another number of ranks, evaluates."""

import json
import sys
from pathlib import Path

import pytest
from commands import ROOT, pfc, run_warm

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
SMALL = ["--images-per-identity", "2", "--unseen-identities", "10", "--pairs", "40"]
SETTINGS = [
    "train.steps=60", "checkpoint.every_steps=3", "data.batch_size=8", "backbone.embedding_dim=32",
    "schedule.warmup=2", "schedule.kind=polynomial",
]  # fmt: skip
SMALL += [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_whole_journey(tmp_path: Path) -> None:
    script = ["bash", str(ROOT / "examples" / "million.sh"), str(BIN), "300", "4096", str(tmp_path), *SMALL]
    done = run_warm(script, cwd=tmp_path, deadline_seconds=280)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "runs" / "million.json").read_text())
    before, restart, after = found["before"], found["restart"], found["after"]
    assert (before["ranks"], after["ranks"]) == (2, 1)
    assert before["first_step"] == 1
    assert 6 <= restart["continued_at"] < restart["killed_at"] == before["last_step"] < 60
    assert (after["first_step"], after["last_step"]) == (restart["continued_at"] + 1, 60)
    assert 0 < restart["ended"] < restart["to_next_step"]
    assert after["loading"] > 0
    for stretch in (before, after):
        assert len(stretch["peak_resident"]) == stretch["ranks"]
        assert all(size > 100 << 20 for size in stretch["peak_resident"])
        assert max(stretch["peak_resident"]) / 2 < stretch["peak_together"]
        assert stretch["images_per_second"] > 0
        assert sum(stretch["parts"].values()) > 0
    assert found["drawn"]["images"] == 600
    assert found["drawn"]["seconds"] > 0
    assert found["peak_together"] < 4 << 30
    lines = [json.loads(line) for line in (tmp_path / "runs" / "million" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 61)), "no step is missing or there twice"
    assert (lines[0]["world_size"], lines[-1]["world_size"]) == (2, 1)
    assert f"| all ranks killed (SIGKILL) | after step {restart['killed_at']};" in done.out
    assert (tmp_path / "runs" / "million.md").read_text().strip() in done.out

    places = {"run.output": tmp_path / "other", "data.records": tmp_path / "datasets" / "million"}
    settings = [word for key, place in places.items() for word in ("--set", f"{key}={place}")]
    other = [ROOT / "examples" / "million.toml", "--identities", "299", *SMALL, *settings]
    again = run_warm(pfc("bench", "journey", *other), cwd=tmp_path)
    assert (again.code, len(again.error_lines)) == (2, 1)
    assert "600 images of 300 identities" in again.err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--kill-after", "60"], "--kill-after 60: no checkpoint"),
        (["--resume-ranks", "3"], "--resume-ranks 3"),
        (["--ranks", "0"], "--ranks must be at least 1"),
        (["--json", "nowhere/out.json"], "no such folder"),
        (["--set", "run.output=."], "begins anew"),
    ],
)
def test_bad_arguments(tmp_path: Path, wrong: list[str], message: str) -> None:
    (tmp_path / "something").touch()
    output = ["--set", "run.output=out"]
    done = run_warm(pfc("bench", "journey", ROOT / "examples" / "million.toml", *SMALL, *output, *wrong), cwd=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert message in done.err
