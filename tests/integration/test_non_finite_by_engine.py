"""Two ranks, of which only the second meets bad numbers, in one piece of a step: all go back, go on and end together.

The learning rate follows the steps, however many pieces they are cut into and whatever becomes of them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoint_reading import assert_identical, everything
from forked_trainers import Ended, Job, run_jobs
from growing import OLD, write_people
from growing_runs import write_run

from trainer.schedule import ScheduleConfig, learning_rate_schedule

pytestmark = pytest.mark.integration

STEPS, PIECES, LR = 7, 2, 0.01
BAD = (4, 5, 6)
ENGINES = {
    "ddp": [],
    "zero 3": ["train.engine=deepspeed", "deepspeed.zero_optimization.stage=3"],
}


def passes(*steps: int) -> str:
    """One forward pass of each step; the first piece of one, the second of the next."""
    return ",".join(str((step - 1) * PIECES + 1 + step % PIECES) for step in steps)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ended]]:
    folder = tmp_path_factory.mktemp("non_finite")
    records = write_people(folder / "people", OLD)

    def job(name: str, engine: str, poison: str, *settings: str) -> Job:
        config = write_run(
            folder / f"{name}.toml", output=folder / name, records=records, steps=STEPS, batch_size=PIECES
        )
        common = (f"train.micro_batches={PIECES}", f"optimizer.lr={LR}", "schedule.warmup=4", "backbone.dropout=0.0")
        sets = [part for key in (*common, *ENGINES[engine], *settings) for part in ("--set", key)]
        return Job(["train", str(config), *sets], str(folder / name), ranks=2, poison=poison)

    jobs = {}
    for engine in ENGINES:
        back, skipped, stopped = (f"{what} {engine}" for what in ("back", "skipped", "stopped"))
        jobs[back] = job(back, engine, passes(*BAD), "failure.max_skipped_in_a_row=3")
        jobs[skipped] = job(skipped, engine, passes(3, *BAD), "failure.non_finite=skip")
        jobs[stopped] = job(stopped, engine, passes(3), "failure.non_finite=stop")
    return folder, run_jobs(jobs, folder / "jobs")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("engine", list(ENGINES))
def test_both_ranks_go_back_and_on(runs: tuple[Path, dict[str, Ended]], engine: str) -> None:
    folder, ended = runs
    back, skipped = f"back {engine}", f"skipped {engine}"
    assert ended[back].codes == [0, 0], ended[back].told
    assert ended[skipped].codes == [0, 0], ended[skipped].told
    for rank in range(2):
        events = lines_of(folder / back / "logs" / f"rank_{rank:04d}.jsonl")
        assert [event["step"] for event in events if event["event"] == "step not finite"] == list(BAD)
        found = [(event["step"], event["to_step"]) for event in events if event["event"] == "rolled back"]
        assert found == [(6, 2)], "step 3 is forgotten with those that failed"
    lines = lines_of(folder / back / "metrics.jsonl")
    assert [line["nonfinite_steps"] for line in lines] == [
        sum(bad <= step for bad in BAD) for step in range(1, STEPS + 1)
    ]
    # The same as if step 3 had not been taken either.
    final = [everything(folder / name / "checkpoints" / f"step_{STEPS:08d}") for name in (back, skipped)]
    for each in final:
        del each["shared"]["passed"]
    assert_identical(*final)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_the_learning_rate_follows_the_steps(runs: tuple[Path, dict[str, Ended]], engine: str) -> None:
    """Once per step: not per piece, also where the step was passed over, and not back where the weights went back."""
    lines = lines_of(runs[0] / f"back {engine}" / "metrics.jsonl")
    schedule = learning_rate_schedule(ScheduleConfig(warmup=4), base=LR, total_steps=STEPS, steps_per_epoch=8)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["learning_rate"] for line in lines] == pytest.approx([schedule(step) for step in range(STEPS)])


@pytest.mark.parametrize("engine", list(ENGINES))
def test_both_ranks_end_at_the_first_where_asked_to(runs: tuple[Path, dict[str, Ended]], engine: str) -> None:
    stopped = runs[1][f"stopped {engine}"]
    assert stopped.codes == [1, 1], stopped.told
    for rank, told in enumerate(stopped.told):
        assert "Traceback" not in told
        errors = [line for line in told.splitlines() if "error" in line]
        assert len(errors) == 1, told
        assert errors[0].startswith(f"pfc: error: rank {rank}: the loss is not finite"), told
    saved = [path for path in stopped.left if path.startswith("checkpoints/") and path.count("/") == 1]
    assert saved == ["checkpoints/step_00000002"], "whole, and nothing else"
