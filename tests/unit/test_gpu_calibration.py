"""A calibration of GPUs, as a file: what is planned from it, and what is refused. Measuring one is in tests/gpu."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.cli import main
from trainer.plan.devices import GIB, device_named
from trainer.plan.gpu_calibration import MeasuredGpu, calibration_text
from trainer.plan.rates import rates_of

pytestmark = pytest.mark.unit
RATES = rates_of(device_named("h100"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One GPU that screens, and another pace where four work at once."""
    found = {1: RATES, 4: replace(RATES, head_seconds=1.0)}
    file = tmp_path / "gpu.json"
    file.write_text(calibration_text(found, MeasuredGpu("h100", 40 * GIB)), encoding="utf-8")
    return file


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code = main(["plan", "--identities", "1000000", "--json", *map(str, arguments)])
    told = capsys.readouterr()
    assert code == 0, told.err
    facts: dict[str, Any] = json.loads(told.out)
    return facts


def test_it_is_planned_with(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = planned(capsys, "--calibration", path, "--ranks", 1)
    sheet = planned(capsys, "--device", "h100", "--ranks", 1)
    assert one["step_seconds"] == pytest.approx(sheet["step_seconds"])
    assert one["largest_identities"] < 0.6 * sheet["largest_identities"], "the memory of the file"
    four = planned(capsys, "--calibration", path, "--ranks", 8, "--ranks-per-node", 4)
    assert four["step_seconds"] > 1.0, "the pace of four on a machine"
    more = planned(capsys, "--calibration", path, "--ranks", 1, "--memory", 80)
    assert more["largest_identities"] == sheet["largest_identities"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "a100-80g"], "is of h100: leave --device and --device-file out"),
        (["--bf16", "100"], "--bf16 has no effect with --calibration"),
        (["--memory", "-1"], "--memory must be a positive number of gib"),
    ],
)
def test_what_it_measured_is_not_given_again(
    path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--identities", "10", "--calibration", str(path), *arguments]) == 2
    assert expected in capsys.readouterr().err


SPOILT: list[object] = [
    3,
    {},
    {"sheet": "h100"},
    {"sheet": 1, "memory": 1.0},
    {"sheet": "h100", "memory": True},
    {"sheet": "h100", "memory": -1.0},
    {"sheet": "h100", "memory": 1e99},
    {"sheet": "h1000", "memory": 1.0},
]


@pytest.mark.parametrize("gpu", SPOILT)
def test_a_spoilt_file_is_refused_in_one_line(path: Path, gpu: object, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gpu": gpu}))
    assert main(["plan", "--identities", "10", "--calibration", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("pfc: error: ") and told.count("\n") == 1


def test_a_machine_without_gpus_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    calibrate = ["plan", "--calibrate", "--calibration", str(tmp_path / "gpu.json"), "--device", "h100"]
    assert main(calibrate) == 2
    assert "PyTorch sees no CUDA device here" in capsys.readouterr().err
    assert main([*calibrate, "--processor-time"]) == 2
    assert "a GPU's time is not the processor's" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
