"""The metrics log of a run that was killed, resumed, or written by something else."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from trainer.report.metrics_log import read_metrics
from trainer.report.thinning import spread_evenly, thin, thin_stack

pytestmark = pytest.mark.unit


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_missing_log_is_empty(tmp_path: Path) -> None:
    log = read_metrics(tmp_path / "metrics.jsonl")
    assert len(log) == 0
    assert log.last("step") is None
    assert log.median("loss") is None


def test_values_reach_their_columns(tmp_path: Path) -> None:
    phases = {"data": 0.25, "head": 0.5, "unknown": 9.0}
    path = write(
        tmp_path / "m",
        {"step": 3, "loss": -1.5, "samples": 2**40 + 1, "mode": "dense", "phase_seconds": phases},
        {"step": 7, "loss": 2, "mode": "screened", "learning_rate": 0.1},
        {"step": 8, "mode": ["screened"], "phase_seconds": 3},
    )
    log = read_metrics(path)
    np.testing.assert_array_equal(log["step"], [3, 7, 8])
    np.testing.assert_array_equal(log["loss"], [-1.5, 2, math.nan])
    np.testing.assert_array_equal(log["screened"], [0, 1, math.nan])
    np.testing.assert_array_equal(log["phase_data"], [0.25, math.nan, math.nan])
    np.testing.assert_array_equal(log["phase_head"], [0.5, math.nan, math.nan])
    assert log.last("samples") == 2**40 + 1  # float32 would lose the one
    assert log.last("loss") == 2


def test_repeated_steps_count_once_and_the_last_wins(tmp_path: Path) -> None:
    first = [{"step": step, "loss": 100 + step} for step in (1, 2, 3, 4, 5)]
    again = [{"step": step, "loss": 200 + step} for step in (3, 4)]
    log = read_metrics(write(tmp_path / "m", *first, *again))
    # Step 5 belongs to the life that ended: the run now stands at step 4.
    np.testing.assert_array_equal(log["step"], [1, 2, 3, 4])
    np.testing.assert_array_equal(log["loss"], [101, 102, 203, 204])
    assert log.rewinds == 1


def test_torn_last_line_is_ignored_silently(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    log = read_metrics(path)
    np.testing.assert_array_equal(log["step"], [1])
    assert log.unreadable_lines == 0


def test_hostile_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    bad = ["[" * 200_000, "7", "null", '"step"', "{}", '{"step": true}', '{"step": -1}', '{"step": NaN}',
           '{"step": 1e300}', '{"step": ' + "9" * 5000 + "}", "\x00\x01"]  # fmt: skip
    log = read_metrics(write(tmp_path / "m", *bad, {"step": 4, "loss": "12"}, ""))
    np.testing.assert_array_equal(log["step"], [4])
    assert np.isnan(log["loss"]).all()
    assert log.unreadable_lines == len(bad)


def test_invalid_utf8_is_one_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b'{"step": 1}\n\xff\xfe{"step": 2}\n{"step": 3}\n')
    assert read_metrics(path)["step"].tolist() == [1, 3]


def test_losses_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": NaN}', '{"step": 2, "loss": Infinity}', '{"step": 3, "loss": null}', '{"step": 4}']
    log = read_metrics(write(tmp_path / "m", *lines, {"step": 5, "loss": 1.0}, {"step": 6, "loss": 10**400}))
    assert log.non_finite_losses == 4
    np.testing.assert_array_equal(log["loss"], [math.nan] * 4 + [1.0, math.nan])


def test_short_curves_keep_every_point() -> None:
    x, y = np.arange(5.0), np.array([1.0, math.nan, 3.0, math.inf, 5.0])
    curve = thin(x, y, points=3)
    assert not curve.thinned
    np.testing.assert_array_equal(curve.x, [0, 2, 4])
    np.testing.assert_array_equal(curve.mean, [1, 3, 5])


@pytest.mark.parametrize("size", [601, 1999, 100_003])
def test_thinning_keeps_peaks_and_the_mean(size: int) -> None:
    values = np.random.default_rng(0).standard_normal(size)
    values[size // 3], values[size // 2] = 99.0, -77.0
    curve = thin(np.arange(size, dtype=np.float64), values, points=600)
    assert curve.thinned
    assert curve.x.size == curve.mean.size == 600
    assert curve.high.max() == 99.0
    assert curve.low.min() == -77.0
    assert (np.diff(curve.x) > 0).all()
    counts = np.diff(np.append(np.linspace(0, size, 600, endpoint=False).astype(int), size))
    assert float((curve.mean * counts).sum()) == pytest.approx(values.sum())


def test_stack_layers_share_their_bins() -> None:
    x = np.arange(1001.0)
    first, second = np.ones(1001), np.full(1001, 2.0)
    first[::2] = math.nan
    position, layers = thin_stack(x, [first, second], points=100)
    assert position.size == 100
    assert layers[0].size == layers[1].size == 100
    assert (layers[0] < 1).all()
    np.testing.assert_allclose(layers[1], 2.0)


@pytest.mark.parametrize("size", [1, 2, 600, 601, 12_345])
def test_spread_keeps_both_ends(size: int) -> None:
    positions = spread_evenly(size, 600)
    assert positions[0] == 0
    assert positions[-1] == size - 1
    assert positions.size == min(size, 600)
