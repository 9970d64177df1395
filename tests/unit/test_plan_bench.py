"""What ``pfc plan --calibrate`` and ``pfc bench plan`` do around their measurements."""

import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import marked, pfc, running
from trainer.bench.plan_problem import SIZES, Compared, Size, format_compared
from trainer.cli import main
from trainer.config import config_from
from trainer.errors import ConfigError, PeerFailedError
from trainer.plan import heap
from trainer.plan.clock import Clock
from trainer.plan.devices import device_named
from trainer.plan.local_ranks import local_ranks, outcome
from trainer.plan.memory import memory_of
from trainer.plan.problem import Problem
from trainer.plan.rates import rates_of
from trainer.plan.short_training import Watched
from trainer.world import World, launched_world

pytestmark = pytest.mark.unit


def alone() -> World:
    return launched_world("cpu", expected_size=None, environment={})


def compared(step: float, measured_step: float, parts: dict[str, tuple[float, float]]) -> Compared:
    return Compared(Size("mobilefacenet", 10_000, 2, 8), "screened", step, measured_step, 1100 << 20, 1000 << 20, parts)


def test_the_table_tells_the_largest_errors() -> None:
    lines = format_compared([compared(0.9, 1.0, {}), compared(1.2, 1.0, {})]).splitlines()
    assert lines[2] == "| mobilefacenet, 10,000, 2 x 8 | screened | 900, 1,000 | -10% | 1,100, 1,000 | +10% |"
    assert lines[-1] == "largest error: step 20% (asked: 25%), memory 10% (asked: 10%)"
    with_parts = format_compared([compared(0.9, 1.0, {"forward": (0.3, 0.4)})])
    assert "forward 300/400" in with_parts
    assert len({line.count("|") for line in with_parts.splitlines()[:3]}) == 1


def test_what_is_measured_covers_what_was_asked() -> None:
    assert {10_000, 100_000, 300_000} == {size.classes for size in SIZES}
    assert {1, 2} == {size.ranks for size in SIZES}
    assert {"mobilefacenet", "iresnet18"} == {size.backbone for size in SIZES}
    assert len(SIZES) >= 6


def test_a_size_says_how_it_is_trained() -> None:
    assert {size.zero for size in SIZES} == {None, 1, 2, 3}
    assert any(size.precision == "bfloat16" for size in SIZES) and any(size.saves for size in SIZES)
    assert str(Size("iresnet18", 10_000, 2, 4, precision="bfloat16", zero=2, saves=True)) == (
        "iresnet18, bfloat16, ZeRO 2, saving, 10,000, 2 x 4"
    )


def test_the_model_gives_back_the_peak_that_it_was_calibrated_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process, files, peak = 300 << 20, 170 << 20, 1300 << 20
    seen: list[Problem] = []

    def watched(values: dict[str, Any], ranks: int, folder: Path) -> Watched:
        seen.append(Problem(config_from(values, "test"), heap.CLASSES, None, ranks, ranks))
        return Watched([], float(peak), float(files), 0.0)

    monkeypatch.setattr(heap, "watched_training", watched)
    probed = replace(rates_of(device_named("cpu")), host_process=float(process))
    rates = heap.with_heap(probed, 2, tmp_path)
    assert rates.host_process == process + files
    assert len(seen) == 3
    for problem in seen:
        assert memory_of(problem, rates, on_cpu=True).device(worst=False) == pytest.approx(peak)


def test_a_clock_takes_the_median_after_one_call() -> None:
    ticks = iter([0.0, 9.0, 10.0, 11.0, 20.0, 22.0])
    calls: list[None] = []
    assert Clock(alone(), lambda: next(ticks)).seconds(lambda: calls.append(None), 3) == 2.0
    assert len(calls) == 4


def test_ranks_that_fail_are_told_and_none_outlives_the_block() -> None:
    with local_ranks(["no_such_module_here"], 2) as processes:
        failed = pytest.raises(
            PeerFailedError, match=r"measuring failed on rank [01] \(exit code 1\): .*No module named "
        )
        with failed:
            outcome(processes, deadline_seconds=60.0)
    assert all(process.poll() is not None for process in processes)


def test_ranks_that_take_too_long_are_ended() -> None:
    with local_ranks(["http.server", "0"], 1) as processes:
        too_long = pytest.raises(ConfigError, match="longer than 0 s: is the machine busy")
        with too_long:
            outcome(processes, deadline_seconds=0.2)
    assert processes[0].poll() is not None


def test_what_rank_0_printed_comes_back() -> None:
    with local_ranks(["platform"], 2) as processes:
        assert outcome(processes, deadline_seconds=60.0).startswith("Linux")


def test_a_calibration_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    mark = uuid.uuid4().hex
    with running(pfc("plan", "--calibrate", "--calibration", path), cwd=tmp_path, mark=mark) as process:
        end = time.monotonic() + 60.0
        while len(marked(mark)) < 2 and time.monotonic() < end:  # until a rank is there
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30.0)
        assert process.returncode == 1 and "nothing half-done is left" in err
        assert not marked(mark), "ranks went with it"
    assert [each.name for each in tmp_path.iterdir()] == [".tmp"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench", "plan", "--steps", "1"], "--steps 1"),
        (["bench", "plan", "--most", "0"], "--most 0"),
        (["bench", "plan", "--folder", "nowhere"], "no such folder"),
        (["bench", "plan", "--calibration", "nowhere.json"], "no such file"),
        (["plan", "--calibrate", "--calibration", "nowhere/here.json"], "a folder that exists"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
