"""``pfc plan --calibrate`` on GPUs."""

import json
from pathlib import Path

import pytest
import torch
from commands import pfc, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.timeout(600)
def test_gpus_are_measured_and_planned_with(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    calibrated = run(
        pfc("plan", "--calibrate", "--device", "h100", "--calibration", path), cwd=tmp_path, deadline_seconds=560
    )
    assert calibrated.code == 0, calibrated.err
    assert [each.name for each in tmp_path.iterdir()] == ["gpu.json"]
    rates = json.loads(path.read_text())["layouts"]["1"]
    assert rates["product"] < rates["flops"] < rates["flops16"]
    planned = run(
        pfc("plan", "--calibration", path, "--identities", "1000000", "--ranks", "1", "--json"),
        cwd=tmp_path,
        deadline_seconds=60,
    )
    assert planned.code == 0, planned.err
    assert 0.0 < json.loads(planned.out)["step_seconds"] < 60.0
