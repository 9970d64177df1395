"""What ``pfc plan --calibrate`` and ``pfc bench plan`` do around their measurements."""

import os
import signal
import time
import uuid
from collections.abc import Callable
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
from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.clock import Clock
from trainer.plan.devices import device_named
from trainer.plan.local_ranks import local_ranks, outcome
from trainer.plan.memory import memory_of
from trainer.plan.problem import Problem
from trainer.plan.rates import FAMILIES, Rates, rates_of
from trainer.plan.short_training import Watched
from trainer.plan.timing import BACKWARD, FORWARD, timing_of
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
    assert {"mobilefacenet", "iresnet18", "iresnet34", "vit_t"} == {size.backbone for size in SIZES}
    assert len(SIZES) >= 6


def test_a_size_says_how_it_is_trained() -> None:
    assert {size.zero for size in SIZES} == {None, 1, 2, 3}
    assert any(size.precision == "bfloat16" for size in SIZES) and any(size.saves for size in SIZES)
    assert str(Size("iresnet18", 10_000, 2, 4, precision="bfloat16", zero=2, saves=True)) == (
        "iresnet18, bfloat16, ZeRO 2, saving, 10,000, 2 x 4"
    )


MIB = 1 << 20
HEAD, OTHER = 0.030, 0.010


class Trainings:
    """Stands for the short trainings of a calibration: says of each what ``of`` makes of it, and keeps what it was."""

    def __init__(self, seconds: Callable[[Problem], dict[str, float]]) -> None:
        self.seen: list[tuple[Problem, dict[str, float], float]] = []
        self._seconds = seconds

    def __call__(self, values: dict[str, Any], ranks: int, folder: Path) -> Watched:
        problem = Problem(config_from(values, "test"), heap.CLASSES, None, ranks, ranks)
        peak = (1300 + 400 * (problem.zero_stage or 0)) * MIB
        seconds = self._seconds(problem)
        self.seen.append((problem, seconds, peak))
        lines = [{"phase_seconds": dict.fromkeys(seconds, 9.0)}, *({"phase_seconds": seconds} for _ in range(3))]
        return Watched(lines, float(peak), 170.0 * MIB, 0.0)


def seconds_of(problem: Problem) -> dict[str, float]:
    """Made up: another for each network, precision and stage, and a step of the optimizer that follows the weights."""
    of = backbone_cost(problem.config.backbone, 112)
    stage = problem.zero_stage or 0
    low = 0.5 if problem.config.backbone.precision == "bfloat16" else 1.0
    forward = low * problem.batch * of.flops()[0] / 40e9
    return {
        "forward": forward + 0.1 * (stage == 3),
        "head": HEAD,
        "backward": 3.0 * forward - 0.02 * (stage == 1),
        "optimizer": 0.002 + 1e-9 * 4 * of.parameters + 0.05 * stage,
        "other": OTHER,
    }


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Trainings, Rates]:
    trainings = Trainings(seconds_of)
    monkeypatch.setattr(heap, "watched_training", trainings)
    # A head of which a training shows more than it takes alone.
    probed = replace(rates_of(device_named("cpu")), host_process=300.0 * MIB, link=2e9, head_seconds=1e-3)
    return trainings, heap.with_heap(probed, 2, tmp_path)


def test_the_model_gives_back_the_peaks_that_it_was_calibrated_on(calibrated: tuple[Trainings, Rates]) -> None:
    trainings, rates = calibrated
    assert rates.host_process == (300 + 170) * MIB
    assert [problem.zero_stage for problem, _, _ in trainings.seen] == [None] * 5 + [1, 2, 3]
    found = {
        problem.zero_stage: memory_of(problem, rates, on_cpu=True).device(worst=False) - peak
        for problem, _, peak in trainings.seen
    }
    assert found[None] == pytest.approx(0.0, abs=1.0) and found[3] == pytest.approx(0.0, abs=1.0)
    assert found[1] == pytest.approx(-found[2], abs=1.0), "ZeRO 1 and 2 share what cannot be computed"


def test_the_model_gives_back_the_phases_that_it_was_calibrated_on(calibrated: tuple[Trainings, Rates]) -> None:
    trainings, rates = calibrated
    for problem, seconds, _ in trainings.seen:
        parts = timing_of(problem, rates).parts
        assert sum(parts.get(name, 0.0) for name in FORWARD) == pytest.approx(seconds["forward"])
        assert sum(parts.get(name, 0.0) for name in BACKWARD) == pytest.approx(seconds["backward"])
        assert parts["between steps"] == pytest.approx(OTHER)
        step = parts["optimizer"] + parts.get("DeepSpeed step", 0.0)
        assert step == pytest.approx(seconds["optimizer"] - 0.002), "the fixed 2 ms belong to the head"
        head = parts["all-gather"] + parts["head"] - 0.002
        assert head == pytest.approx(HEAD, rel=0.2), "the median of all trainings"


def test_by_the_processor_s_clock_phases_stay_what_passes_alone_took(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(heap, "watched_training", Trainings(seconds_of))
    probed = replace(rates_of(device_named("cpu")), host_process=300.0 * MIB, backward=dict.fromkeys(FAMILIES, 7.0))
    rates = heap.with_heap(probed, 1, tmp_path, phases=False)
    assert rates.backward == probed.backward and rates.update == probed.update
    assert rates.activations != probed.activations and rates.zero_memory == probed.zero_memory


def test_ranks_started_for_a_measurement_share_the_cores(tmp_path: Path) -> None:
    (tmp_path / "threads_here.py").write_text("import os; print(os.environ['OMP_NUM_THREADS'])", encoding="utf-8")
    cores = len(os.sched_getaffinity(0))
    for ranks in (1, cores + 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(tmp_path))
            with local_ranks(["threads_here"], ranks) as processes:
                assert outcome(processes, deadline_seconds=60.0).split() == [str(max(1, cores // ranks))]


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
