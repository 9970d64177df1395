"""What ``pfc bench step`` counts, and what it makes of it."""

import argparse
import csv
from pathlib import Path

import pytest

from data_pipeline import RecordReader
from trainer.bench.seconds import Seconds, both_clocks
from trainer.bench.step_problem import PARTS, RATIOS, Round, StepEffort, StepResults, step_results
from trainer.bench.step_records import COPIES, PHOTOGRAPHS, write_records
from trainer.bench.step_rounds import IN_MEMORY, batches_needed
from trainer.bench.step_table import format_step, write_step_csv
from trainer.commands import bench_step as bench_step_command
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

EFFORT = StepEffort(
    backbone="mobilefacenet", image_size=112, num_classes=10_000, embedding_dim=512, batch=64, repetitions=3, steps=2,
    warmup=1, threads=1, decode_threads=1, seed=4,
)  # fmt: skip


def a_round(slower: float = 1.0, step: float = 8.4) -> Round:
    """Parts of 1 s each, of which the processor works half; a machine that is ``slower`` is so all the round."""
    parts = dict.fromkeys(PARTS, Seconds(slower, slower / 2))
    return Round(parts, Seconds(slower * step, slower * step / 2), Seconds(slower * 8.0, slower * 6.0))


def results(*rounds: Round) -> StepResults:
    return step_results(EFFORT, rounds, Seconds(0.07, 0.035), world_size=2, head_modes="dense")


def test_ratios_are_taken_within_a_round() -> None:
    # The step's own share of a round is 8.4 / 7 in all of them, however slow the machine was.
    found = results(a_round(), a_round(slower=3.0), a_round(slower=10.0)).figures
    assert set(found) > {*PARTS, *RATIOS}
    assert found["sum"].wall.median == pytest.approx(3 * 7.0), "without decode"
    assert found["sum_with_decode"].wall.median == pytest.approx(3 * 8.0)
    ratio = found["step_over_sum"]
    assert (ratio.wall.q1, ratio.wall.median, ratio.wall.q3) == pytest.approx((1.2, 1.2, 1.2))
    assert ratio.cpu.median == pytest.approx(1.2)
    assert (found["loaded_over_sum"].wall.q3, found["loaded_over_sum"].cpu.q3) == pytest.approx((1.0, 1.5))
    assert found["metrics_share"].wall.median == pytest.approx(1 / 8.4)
    assert found["told_share"].wall.median == pytest.approx(0.07 / (3 * 8.4))


def test_the_table_names_every_part_and_what_was_asked() -> None:
    text = format_step(results(a_round(), a_round(step=7.0), a_round(step=9.1)))
    conditions, headings, *lines = text.splitlines()
    assert conditions.startswith("mobilefacenet at 112x112, 10,000 classes, D=512, batch 64 a rank; 2 ranks, 1 thread")
    assert "3 rounds of 2 steps after 1, seed 4" in conditions
    assert headings.split()[0] == "wall"
    assert [line.split()[0] for line in lines[: len(PARTS)]] == list(PARTS)
    assert (
        lines[-3].split("step / sum:")[1].strip() == "1.200x (1.100-1.250), CPU 1.200x (1.100-1.250); asked: <= 1.05x"
    )
    assert lines[-1].endswith("asked: <= 1%")


def test_csv_holds_every_figure_of_every_size(tmp_path: Path) -> None:
    write_step_csv(tmp_path / "out.csv", [results(a_round()), results(a_round(slower=2.0))])
    lines = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    first, second = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert [line["figure"] for line in first] == [line["figure"] for line in second]
    assert {line["figure"] for line in first} == set(results(a_round()).figures)
    by_figure = {line["figure"]: line for line in second}
    assert (by_figure["forward"]["wall"], by_figure["forward"]["cpu"]) == ("2.0", "1.0")
    assert (by_figure["forward"]["unit"], by_figure["step_over_sum"]["unit"]) == ("seconds", "ratio")
    assert (by_figure["head"]["num_classes"], by_figure["head"]["world_size"]) == ("10000", "2")


def test_processor_time_stands_still_while_nothing_works() -> None:
    before = both_clocks()
    gone = both_clocks() - before
    assert gone.cpu >= 0.0
    assert gone.wall > 0.0
    assert (Seconds(1.0, 2.0) + Seconds(3.0, 6.0)) / 2 == Seconds(2.0, 4.0)


def test_identities_of_the_records_lie_all_over_the_classes(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    assert write_records(path, num_identities=70_000, image_size=32, seed=1) == PHOTOGRAPHS * COPIES
    with RecordReader(path) as reader:
        identities = [record.identity for record in reader]
        assert len({record.jpeg for record in reader}) == PHOTOGRAPHS
    assert len(identities) == PHOTOGRAPHS * COPIES
    assert 0 <= min(identities) < 1000
    assert 69_000 < max(identities) < 70_000


def test_no_epoch_ends_while_it_is_measured() -> None:
    assert batches_needed(EFFORT) >= IN_MEMORY + 4 + 2 + 3 * (6 + 2 + 4 + 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--batch-size", "1"], "--batch-size must be at least 2"),
        (["--image-size", "31"], "--image-size must be at least 32"),
        (["--classes", "10", "1"], "--classes must be at least 2"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--warmup", "0"], "--warmup must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--classes", "900000000000"], "GiB are free; measure fewer"),
        (["--csv", "nowhere/out.csv"], "no such folder"),
        (["--csv", "."], "is a folder"),
        (["--folder", "nowhere"], "no such folder"),
    ],
)
def test_bad_arguments(wrong: list[str], message: str) -> None:
    parser = argparse.ArgumentParser()
    bench_step_command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["step", *wrong])
    with pytest.raises(ConfigError, match=message):
        arguments.handler(arguments)
