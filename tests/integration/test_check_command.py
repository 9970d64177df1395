"""``pfc check``: what the trainer would say of a run, said without starting it and without a trace."""

import json
from pathlib import Path

import pytest
from commands import pfc, run_warm
from small_faces import make_small_faces, write_run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def check(tmp_path: Path, faces: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, error line; nothing may have been written."""
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    before = {path for path in tmp_path.rglob("*") if ".tmp" not in path.parts}
    finished = run_warm(pfc("check", config, *arguments), cwd=tmp_path)
    assert {path for path in tmp_path.rglob("*") if ".tmp" not in path.parts} == before
    return finished.code, finished.out, finished.err


def test_what_the_run_would_be(faces: Path, tmp_path: Path) -> None:
    code, out, err = check(tmp_path, faces, "--json", "--world-size", "3", "--set", "run.device=cuda")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["config"]["data"]["num_identities"] == 9
    assert facts["config"]["run"]["device"] == "cuda", "no GPU is needed to ask"
    wanted = {"world_size": 3, "global_batch": 24, "num_images": 63, "steps_per_epoch": 2, "total_steps": 24}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["resumes_from"] is None
    (tmp_path / "again.toml").write_text(facts["toml"])
    again = run_warm(pfc("check", tmp_path / "again.toml", "--json", "--world-size", "3"), cwd=tmp_path)
    assert json.loads(again.out) == facts, "the text is the whole configuration"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "data.batchsize=8"], "the nearest known key is 'data.batch_size'"),
        (["--set", "data.batch_size=16", "--world-size", "4"], "a global batch of 64 (16 x 4 ranks) is larger than"),
        (["--set", "data.batch_size=2", "--world-size", "10"], "9 identities for 10 ranks"),
        (["--set", "data.num_identities=5"], "[0, 5)"),
        (["--set", "run.world_size=3", "--world-size", "2"], "run.world_size is 3, and 2 ranks are to be started"),
        (["--set", "run.device=gpu"], "run.device 'gpu' is unknown"),
        (["--set", "data.image_size=50"], "multiple of 16"),
        (["--set", "schedule.warmup=500"], "schedule.warmup lasts 500 of 24 steps"),
        (["--set", 'evaluation.pairs=["absent.bin"]'], "absent.bin"),
        (["--set", 'backbone.pretrained="absent.pt"'], "absent.pt"),
        (["--set", 'growth.from="absent"'], "no such run folder or checkpoint folder"),
        (["--set", "data.records=absent.rec"], "absent.rec"),
        (["--set", "run.output=run.toml"], "run.toml is no folder"),
        (["--set", "run.output=run.toml/out"], "run.toml is no folder"),
        (["--world-size", "0"], "at least one rank"),
    ],
)
def test_refused(faces: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, out, err = check(tmp_path, faces, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("pfc: error: ")
    assert message in err


def test_without_data_files_are_left_alone(faces: Path, tmp_path: Path) -> None:
    elsewhere = ["--no-data", "--set", "data.records=/data/ms1m", "--set", "run.output=/runs/one"]
    code, out, err = check(tmp_path, faces, *elsewhere, "--json", "--world-size", "16")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["global_batch"], facts["num_identities"], facts["data_checked"]) == (128, None, False)
    code, _, err = check(tmp_path, faces, *elsewhere, "--set", "data.image_size=50")
    assert code == 2
    assert "multiple of 16" in err


def test_the_checkpoint_it_would_go_on_from(faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces, steps=10)
    assert run_warm(pfc("train", config), cwd=tmp_path).code == 0

    def checked(*arguments: str) -> tuple[int, str]:
        finished = run_warm(pfc("check", config, *arguments), cwd=tmp_path)
        return finished.code, finished.out + finished.err

    assert "from step 10" in checked()[1]
    code, said = checked("--world-size", "2")  # twice the global batch
    assert code == 2
    assert "batch" in said
    assert "from step 10" in checked("--world-size", "2", "--set", "data.batch_size=4")[1]
    assert "holds another run (optimizer.lr is 0.05 there, 0.2 here)" in checked("--set", "optimizer.lr=0.2")[1]
    description = tmp_path / "out" / "checkpoints" / "step_00000010" / "checkpoint.json"
    description.write_text(description.read_text().replace('"step": 10', '"step": 11'))
    assert "from step 5" in checked()[1], "a damaged one is passed over"
    for other in (tmp_path / "out" / "checkpoints").glob("*/checkpoint.json"):
        other.unlink()
    assert "none of its 2 checkpoints is whole" in checked()[1]
