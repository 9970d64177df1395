"""Figures of ``pfc top`` from the text that ranks serve: rates, states, rows, and what strange text does."""

import math

import pytest
from rank_exporter import PHASES, RankMetrics

from trainer.top.board import Board
from trainer.top.endpoints import Endpoint
from trainer.top.fetch import EndpointError
from trainer.top.history import WINDOW_SECONDS, History
from trainer.top.poll import Answer
from trainer.top.ranks import COLUMNS, Rank, State
from trainer.top.reading import Reading, parse_reading
from trainer.top.sparkline import sparkline
from trainer.top.table import lay_out, plain

pytestmark = pytest.mark.unit

HERE = Endpoint("127.0.0.1", 9500)


def read(metrics: RankMetrics | bytes, time: float = 0.0) -> Reading:
    body = metrics if isinstance(metrics, bytes) else metrics.text()
    return parse_reading(body, time=time, wall_time=1_000_000.0 + time)


def cells(*readings: Reading, problem: str = "") -> dict[str, str]:
    history = History()
    for reading in readings:
        history.add(reading)
    rank = Rank(HERE, history, problem)
    return {column.title: column.cell(rank) for column in COLUMNS}


def table(*answers: Answer, width: int | None = None) -> list[str]:
    board = Board()
    board.update(answers)
    return plain(lay_out(board.jobs, width)).splitlines()


def test_a_single_reading_gives_means_since_the_start() -> None:
    metrics = RankMetrics(rank=3, steps=10)
    row = cells(read(metrics))
    assert (row["rank"], row["state"], row["step"]) == ("3", "up", "10/1,000")
    assert row["images/s"] == "64"  # 32 images in half a second
    assert row["step time"] == "500 ms"
    names = {"data": "data", "fwd": "forward", "head": "head", "bwd": "backward", "opt": "optimizer", "other": "other"}
    assert {title: row[title] for title in names} == {title: f"{PHASES[name]:.0%}" for title, name in names.items()}


def test_rates_are_of_what_counters_gained() -> None:
    metrics = RankMetrics(steps=100)
    first = read(metrics, 0.0)
    for _ in range(4):
        metrics.step(seconds=0.25, mode="dense")
    row = cells(first, read(metrics, 2.0))
    assert (row["images/s"], row["step time"]) == ("64", "250 ms")
    history = History()
    for reading in (first, read(metrics, 2.0)):
        history.add(reading)
    assert history.shares("pfc_head_steps_total", "mode") == {"screened": 0.0, "dense": 1.0}


def test_rates_forget_what_is_long_ago_and_sink_when_nothing_moves() -> None:
    metrics, history = RankMetrics(steps=1), History()
    history.add(read(metrics, 0.0))
    for _ in range(30):
        metrics.step()
    history.add(read(metrics, 1.0))
    assert history.images_per_second == pytest.approx(30 * 32)
    for time in range(2, 200, 2):
        history.add(read(metrics, float(time)))
    assert history.images_per_second == 0.0
    assert history.step_seconds == pytest.approx(0.5), "of all steps, where the window has none"
    assert WINDOW_SECONDS < 100


def test_a_new_process_begins_anew() -> None:
    history = History()
    history.add(read(RankMetrics(steps=100), 0.0))
    history.add(read(RankMetrics(steps=4), 2.0))
    assert history.images_per_second == pytest.approx(64.0), "the mean of the new process alone"


def test_states() -> None:
    starting, up, sick = RankMetrics(), RankMetrics(steps=1), RankMetrics(steps=1)
    up.set("pfc_healthy", 1)
    sick.set("pfc_healthy", 0)
    assert [cells(read(metrics))["state"] for metrics in (starting, up, sick)] == ["starting", "up", "unhealthy"]
    gone = cells(read(up), problem="connection refused")
    assert (gone["state"], gone["step"], gone["images/s"]) == ("gone", "1/1,000", "-"), "no old rates"
    assert Rank(HERE, None, "connection refused").state == State.GONE


def test_figures_of_the_catalogue() -> None:
    metrics = RankMetrics(steps=2)
    metrics.set("pfc_data_wait_ratio", 0.25)
    metrics.set("pfc_data_queue_batches", 2)
    metrics.set("pfc_data_queue_capacity_batches", 4)
    metrics.set("pfc_memory_bytes", 3 << 30, kind="device")
    metrics.set("pfc_memory_bytes", 1 << 30, kind="host")
    metrics.set("pfc_data_skipped_records_total", 5, reason="decode")
    metrics.set("pfc_eta_seconds", 7260)
    metrics.set("pfc_epoch", 1.5)
    metrics.set("pfc_loss", -3.25, part="total")
    metrics.set("pfc_angle_radians", math.pi / 3, pair="positive")
    metrics.set("pfc_angle_radians", math.pi / 2, pair="negative")
    metrics.set("pfc_active_pairs", 12345)
    metrics.set("pfc_checkpoint_last_success_timestamp_seconds", 1_000_000.0 - 90)
    metrics.set("pfc_last_checkpoint_step", 1)
    metrics.set("pfc_verification_accuracy_ratio", 0.9925, pairs="lfw")
    row = cells(read(metrics))
    assert (row["data wait"], row["queue"], row["memory"], row["skipped"]) == ("25%", "2/4", "3.0 GiB", "5")
    shown = "\n".join(table(Answer(HERE, read(metrics))))
    expected = [
        "faces  [1 up]  iresnet50  1000 classes  2 ranks  on cpu",
        "step 2/1,000",
        "epoch 1.5",
        "ETA 2 h 1 min",
        "loss -3.25",
        "own center 60.0°, others 90.0°",
        "active pairs 12,345",
        "path screened 100%",
        "checkpoint 90 s ago (step 1)",
        "accuracy lfw 99.25%",
    ]
    for words in expected:
        assert words in shown, words


def test_an_older_version_shows_dashes() -> None:
    body = b"pfc_step 7.0\npfc_step_seconds_count 7.0\npfc_step_seconds_sum 3.5\n"
    row = cells(read(body))
    assert (row["step"], row["step time"], row["state"]) == ("7/-", "500 ms", "up")
    unknown = {
        "rank",
        "images/s",
        "data wait",
        "memory",
        "skipped",
        "queue",
        "data",
        "fwd",
        "head",
        "bwd",
        "opt",
        "other",
    }
    assert {title for title, cell in row.items() if cell == "-"} == unknown
    assert any("accuracy -" in line for line in table(Answer(HERE, read(body))))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"# HELP nothing\n",
        b"<html>pfc_</html>",
        b"pfc_step{job=\n",
        b'pfc_step{job="\xff\xfe"} 1\n',
        b"pfc_step one\n",
        b"pfc_step{" + b"a" * 100_000 + b"\n",
        b"process_cpu_seconds_total 1\n",
    ],
)
def test_what_is_no_metrics_of_a_rank_is_refused(body: bytes) -> None:
    with pytest.raises(EndpointError):
        read(body)


def test_strange_text_does_not_reach_the_terminal() -> None:
    body = b'pfc_step{job="\x1b[2J\x07%s",rank="%s"} 1\npfc_loss{part="total"} NaN\npfc_epoch +Inf\n'
    lines = table(Answer(HERE, read(body % (b"x" * 5000, b"9" * 5000))))
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 250
    assert any("epoch -" in line and "loss -" in line for line in lines)


@pytest.mark.parametrize("width", [20, 30, 60, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    answers = [
        Answer(Endpoint("127.0.0.1", 9500 + rank), read(RankMetrics(rank=rank, steps=3)), "") for rank in range(3)
    ]
    answers.append(Answer(Endpoint("a-host-with-a-very-long-name.example.org", 9500), None, "connection refused"))
    lines = table(*answers, width=width)
    assert max(map(len, lines)) <= width
    assert sum(line.split()[:2] == [str(rank), "up"] for line in lines for rank in range(3)) == 3, "rank and state stay"
    titles = next(line for line in lines if line.startswith("rank")).split()
    assert ("images/s" in titles, "endpoint" in titles) == (width >= 30, width >= 200)


def test_ranks_are_in_order_and_jobs_apart() -> None:
    answers = [
        Answer(Endpoint("b", port), read(RankMetrics(job=job, rank=rank, steps=1)))
        for port, (job, rank) in enumerate([("faces", 10), ("other", 0), ("faces", 2)], start=9500)
    ]
    lines = table(*answers)
    rows = [line.split()[0] for line in lines if " up " in line and "[" not in line]
    assert rows == ["2", "10", "0"]
    assert [line.split()[0] for line in lines if "[" in line] == ["faces", "other"]


def test_a_sparkline_spans_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, 3.0]) == "▅▅"
    assert sparkline([9.0, 0.0, 1.0], width=2) == "▁█"
    assert sparkline([]) == ""
