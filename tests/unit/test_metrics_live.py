"""What is read off a running rank: rates of the last steps, health, memory, labels; and how it is asked."""

import json
import math
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from head_statistics import STATS
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from small_faces import make_small_faces

from data_pipeline import make_loader
from partial_fc import ArcFace, CenterSGD, PartialFC, SFace
from trainer.engine import DDPEngine
from trainer.errors import ConfigError
from trainer.metrics import Health, LiveMetrics, TrainingMetrics, exporter
from trainer.metrics.head_speed import bare_flops, product_flop
from trainer.metrics.health import Verdict
from trainer.metrics.recent import WINDOW_STEPS, RecentSteps
from trainer.pulse import EVALUATING, LEFT, OPENING, STEP, Pulse
from trainer.run_starts import STARTS, note_start
from trainer.world import World

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def steps(recent: RecentSteps, clock: Clock, count: int, *, seconds: float = 2.0, first: int = 1) -> None:
    for step in range(first, first + count):
        clock.time += seconds
        recent.add(step, seconds=seconds, data_seconds=seconds / 4, head_seconds=seconds / 2, samples=8)


def test_figures_of_the_last_steps(clock: Clock) -> None:
    recent = RecentSteps(clock)
    assert all(math.isnan(figure) for figure in (recent.images_per_second, recent.pace_seconds, recent.idle_seconds))
    steps(recent, clock, WINDOW_STEPS, seconds=100.0)  # forgotten
    clock.time += 30.0  # an evaluation
    steps(recent, clock, WINDOW_STEPS, first=51)
    assert (recent.images_per_second, recent.data_wait_ratio, recent.head_seconds) == (4.0, 0.25, 1.0)
    assert (recent.median_seconds, recent.pace_seconds, recent.idle_seconds) == (2.0, 2.0, 0.0)
    assert recent.last_step == 100
    clock.time += 48.0
    steps(recent, clock, 1, first=101)
    assert recent.images_per_second == 4.0
    assert recent.pace_seconds == (48.0 + 2.0 * 49) / 49, "what lies between two steps counts"


def test_health(clock: Clock) -> None:
    pulse, recent = Pulse(), RecentSteps(clock)
    health = Health(pulse, recent, factor=10.0, pause_seconds=300.0)
    pulse.enter(OPENING)
    assert health.judge() == Verdict(False, "starting: opening the data")
    pulse.enter(STEP, 1)
    assert health.judge() == Verdict(False, "no step taken yet: step 1")
    steps(recent, clock, 5)
    pulse.enter(STEP, 6)
    assert health.judge() == Verdict(True, "step 5, 2 s a step")
    clock.time += 20.0
    assert health.judge().is_ready
    clock.time += 0.1
    pulse.enter_part("data")
    assert health.judge() == Verdict(False, "no step for 20 s, more than 10 times the median of 2 s: in step 6 (data)")
    pulse.enter(EVALUATING, 5)
    assert health.judge().is_ready, "an evaluation takes longer than a step"
    clock.time += 300.0
    assert not health.judge().is_ready
    pulse.enter(LEFT)
    assert health.judge().is_ready
    pulse.fail()
    assert not health.judge().is_ready


def test_quick_steps_may_pause_for_seconds(clock: Clock) -> None:
    pulse, recent = Pulse(), RecentSteps(clock)
    health = Health(pulse, recent, factor=10.0, pause_seconds=300.0)
    pulse.enter(STEP, 1)
    steps(recent, clock, 5, seconds=0.01)
    clock.time += 9.0
    assert health.judge().is_ready
    clock.time += 2.0
    assert not health.judge().is_ready


def get(port: int | None, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def base() -> Iterator[int]:
    """A port that is taken, with one further on that is free."""
    while True:
        with socket.socket() as taken, socket.socket() as free:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            try:
                free.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            free.close()
            taken.listen()
            yield port
            return


def test_every_series_says_whose_it_is_and_the_next_port_is_taken(base: int) -> None:
    registry = CollectorRegistry()
    metrics = TrainingMetrics(registry)
    metrics.loss.labels("total").set(1.0)
    said = [Verdict(False, "starting")]
    with pytest.raises(ConfigError, match=f"127.0.0.1:{base} cannot be opened .* or metrics.port_in_use = 'next'"):  # noqa: SIM117
        with exporter(registry, address="127.0.0.1", port=base, local_rank=0):
            pass
    with exporter(
        registry,
        address="127.0.0.1",
        port=base,
        local_rank=0,
        labels={"job": 'a "run"', "rank": "3"},
        health=lambda: said[0],
        port_in_use="next",
        local_world_size=2,
    ) as port:
        assert port == base + 2
        code, kind, text = get(port, "/metrics")
        assert (code, kind.split(";")[0]) == (200, "text/plain")
        families = list(text_string_to_metric_families(text))
        series = [sample for family in families for sample in family.samples]
        assert len(series) > 60
        assert all((each.labels["job"], each.labels["rank"]) == ('a "run"', "3") for each in series)
        assert {"part": "total", "job": 'a "run"', "rank": "3"} in [each.labels for each in series]
        assert any(each.name == "process_cpu_seconds_total" for each in series)
        code, kind, text = get(port, "/healthz")
        assert (code, kind) == (503, "application/json")
        assert json.loads(text) == {"ready": False, "text": "starting", "job": 'a "run"', "rank": "3"}
        said[0] = Verdict(True, "step 7")
        assert get(port, "/healthz")[0] == 200
        assert get(port, "/")[0] == 404


def test_what_is_read_off_a_run(clock: Clock, tmp_path: Path) -> None:
    registry, pulse, recent = CollectorRegistry(), Pulse(), RecentSteps(clock)
    loader = make_loader(make_small_faces(tmp_path / "faces") / "train.rec", batch_size=4, decoder="cpu", image_size=32)
    head = PartialFC(3000, 16, SFace())
    optimizer = CenterSGD(head)
    backbone = torch.nn.Linear(4, 16)
    world = World(0, 1, 0, torch.device("cpu"))
    engine = DDPEngine(backbone, torch.optim.SGD(backbone.parameters(), lr=0.1), world, image_size=32)
    LiveMetrics(
        recent=recent,
        health=Health(pulse, recent, factor=10.0, pause_seconds=300.0),
        head=head,
        center_optimizer=optimizer,
        loader=loader,
        engine=engine,
        total_steps=10,
        bare_flops=1e9,
        registry=registry,
    )

    def value(name: str, **labels: str) -> float:
        found = registry.get_sample_value(name, labels)
        assert found is not None, name
        return found

    assert value("pfc_healthy") == 0
    assert math.isnan(value("pfc_eta_seconds"))
    assert value("pfc_unseen_classes") == 3000
    assert value("pfc_data_queue_batches") == 0
    next(iter(loader))
    assert 0 < value("pfc_data_queue_batches") <= value("pfc_data_queue_capacity_batches") == 4
    embeddings = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    head(embeddings, torch.tensor([5, 5, 2999, 0])).backward()
    optimizer.step()
    pulse.enter(STEP, 1)
    steps(recent, clock, 4)
    assert value("pfc_healthy") == 1
    assert value("pfc_eta_seconds") == 6 * 2.0
    assert value("pfc_unseen_classes") == 2997
    assert value("pfc_images_per_second") == 4.0
    assert value("pfc_data_wait_ratio") == 0.25
    flops = product_flop(3000, 16, 4) / 1.0
    assert value("pfc_head_flops_per_second") == flops
    assert value("pfc_head_bare_product_ratio") == 1e9 / flops
    assert value("pfc_memory_bytes", kind="centers") == 3000 * 16 * 4
    assert value("pfc_memory_bytes", kind="center_codes") == 3000 * (4 + 4), "few classes are not screened"
    # Every row has momentum after a dense step, and a place in the table of them.
    assert value("pfc_memory_bytes", kind="center_momentum") == 3000 * (16 * 4 + 3 * 4 + 4)
    assert value("pfc_memory_bytes", kind="host") > 1e7
    assert value("pfc_memory_bytes", kind="host_available") > 1e7
    assert registry.get_sample_value("pfc_memory_bytes", {"kind": "device"}) is None
    for operation in ("all_gather", "reduce_scatter", "all_reduce", "gradient_all_reduce"):
        assert value("pfc_collective_bytes_total", operation=operation) == 0, "a world of one"
        assert value("pfc_collective_seconds_total", operation=operation) == 0


def test_memory_of_a_head_that_moves_all_centers(clock: Clock) -> None:
    from partial_fc import memory_use

    head = PartialFC(100, 16, ArcFace())
    optimizer = CenterSGD(head)
    assert memory_use(head, optimizer)["center_momentum"] == 0
    head(torch.randn(4, 16).requires_grad_(), torch.tensor([1, 2, 3, 4])).backward()
    optimizer.step()
    assert memory_use(head, optimizer) | {"center_buffers": 0} == {
        "centers": 6400,
        "center_momentum": 6400,
        "center_codes": 0,
        "center_buffers": 0,
    }


def test_the_bare_product_is_timed_after_a_first_one() -> None:
    times = iter([0.0, 50.0, 50.0, 54.0, 54.0, 55.0, 55.0, 57.0])
    assert bare_flops(100, 8, 4, torch.device("cpu"), now=lambda: next(times)) == 2 * 100 * 8 * 4
    assert math.isnan(bare_flops(0, 8, 4, torch.device("cpu")))


def test_starts_are_counted_over_processes(tmp_path: Path) -> None:
    assert [note_start(tmp_path, step, 2) for step in (0, 10, 20)] == [1, 2, 3]
    lines = [json.loads(line) for line in (tmp_path / STARTS).read_text().splitlines()]
    assert [(line["step"], line["world_size"]) for line in lines] == [(0, 2), (10, 2), (20, 2)]
    assert note_start(tmp_path / "nowhere", 0, 1) == 1, "what cannot be written is counted"


def test_a_step_that_dropped_something_says_so() -> None:
    from dataclasses import replace

    registry = CollectorRegistry()
    metrics = TrainingMetrics(registry)
    metrics.record_step(
        step=1, epoch=0.1, local_samples=8, stats=replace(STATS, dropped_mass=0.01), learning_rate=0.1,
        step_seconds=1.0, phase_seconds={},
    )  # fmt: skip
    assert registry.get_sample_value("pfc_dropped_mass_ratio") == 0.01
    assert registry.get_sample_value("pfc_embedding_gradient_norm") == STATS.gradient_norm
