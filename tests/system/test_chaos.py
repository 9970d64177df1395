"""Killed again and again and started again: the weights are those of the run to which nothing happened, bit for bit.

``make chaos`` runs it with 30 faults; here there are as many as fit into a test run. Each draws from its seed.
"""

from pathlib import Path

import pytest
from chaos import EVALUATION_STEPS, LAUNCHER, Chaos, Fault, draw_plan, enough_steps
from checkpoint_reading import assert_identical, everything
from commands import launch, run
from small_faces import make_small_faces, write_run

pytestmark = pytest.mark.system

RANKS = 2
# One of each kind, at each moment; --chaos-faults draws as many as one likes.
SHORT_PLAN = [
    Fault("checkpoint", "kill", 0),
    Fault("evaluation", "kill", LAUNCHER),
    Fault("step", "delay", 1),
    Fault("step", "freeze", 0, steps=2),
    Fault("start", "kill", 1, delay=1.0),
    Fault("step", "stop", LAUNCHER),
]


def test_a_run_that_is_killed_at_any_moment_learns_the_same(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, seed = request.config.getoption("--chaos-faults"), request.config.getoption("--chaos-seed")
    plan = draw_plan(seed, faults, RANKS) if faults else SHORT_PLAN
    faces = make_small_faces(tmp_path / "faces")
    outputs = {name: tmp_path / name for name in ("undisturbed", "disturbed")}
    steps = enough_steps(plan)

    def arguments(name: str) -> list[str]:
        config = write_run(tmp_path / f"{name}.toml", output=outputs[name], faces=faces, steps=steps, batch_size=8)
        often = [f"evaluation.every_steps={EVALUATION_STEPS}", "checkpoint.every_steps=3"]
        limits = ["failure.silence_seconds=3", "failure.join_seconds=15"]
        return ["train", str(config), *(part for key in (*often, *limits) for part in ("--set", key))]

    undisturbed = run(launch(RANKS, *arguments("undisturbed")), cwd=tmp_path, deadline_seconds=280)
    assert undisturbed.code == 0, undisturbed.err

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"  {line}", flush=True)

    folder = tmp_path / "launches"
    folder.mkdir()
    chaos = Chaos(outputs["disturbed"], arguments("disturbed"), RANKS, folder, say=say if faults else lambda line: None)
    chaos.run(plan)
    last = f"checkpoints/step_{steps:08d}"
    assert_identical(everything(outputs["disturbed"] / last), everything(outputs["undisturbed"] / last))
    left = [path.name for path in outputs["disturbed"].rglob(".*")]
    assert not left, "nothing half-written is left"
    if faults:
        say(
            f"{faults} faults (seed {seed}), {chaos.launches} launches, {chaos.starts} starts, {steps} steps: "
            "weights bit-identical to the undisturbed run"
        )
