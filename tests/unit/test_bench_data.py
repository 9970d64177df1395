"""What ``pfc bench data`` counts: whose batches, whose time, which ratio."""

import argparse
import csv
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline import DataError, RecordReader, RecordWriter
from trainer.bench.bare_dali import write_filtered_index
from trainer.bench.data_bench import ahead, batches_needed, bench_data
from trainer.bench.data_picture import write_picture
from trainer.bench.data_problem import METHODS, DataEffort, OpeningRow, ThroughputRow
from trainer.bench.data_table import format_opening, format_throughput, write_csv
from trainer.bench.opening_files import write_opening_files
from trainer.bench.opening_probe import main as probe
from trainer.bench.pil_dataset import EndlessShuffle
from trainer.commands import bench_data as bench_data_command
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

EFFORT = DataEffort(
    batch_size=6, image_size=8, device="cpu", threads=1, workers=3, prefetch=2, batches=5, repetitions=4, seed=0
)


class Clocked:
    """Contestants whose batches take a known time; the clock stands still otherwise."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.time = 0.0
        self.turns: list[str] = []
        self.handed_out = dict.fromkeys(seconds, 0)

    def build(self, method: str) -> Iterator[torch.Tensor]:
        while True:
            self.time += self.seconds[method]
            self.turns.append(method)
            self.handed_out[method] += 1
            yield torch.zeros(6, 3, 8, 8)

    def settle(self) -> None:
        pass


def test_rates_and_ratios_are_of_the_timed_batches() -> None:
    clocked = Clocked({"dali": 2.0, "pfc": 2.5, "dali-flip": 4.0, "pfc-flip": 4.0, "pil-flip": 12.0})
    rows = bench_data(clocked, list(clocked.seconds), EFFORT, now=lambda: clocked.time)  # type: ignore[arg-type]
    by_method = {row.method: row for row in rows}
    assert {name: row.images_per_second for name, row in by_method.items()} == {
        "dali": 3.0, "pfc": 2.4, "dali-flip": 1.5, "pfc-flip": 1.5, "pil-flip": 0.5,
    }  # fmt: skip
    assert (by_method["pfc"].over_bare, by_method["pfc"].over_pil) == (pytest.approx(0.8), pytest.approx(4.8))
    assert (by_method["pfc-flip"].over_bare, by_method["pfc-flip"].over_pil) == (1.0, 3.0)
    assert set(clocked.handed_out.values()) == {2 + ahead(EFFORT) + 4 * (ahead(EFFORT) + 5)}
    assert max(clocked.handed_out.values()) <= batches_needed(EFFORT), "no epoch ends"
    turns = [method for method, _ in itertools.groupby(clocked.turns)]
    there, back = list(clocked.seconds), list(clocked.seconds)[::-1]
    # First batches, then rounds that go there and back: the last of a round is the first of the next.
    assert turns == [*there, *there, *back[1:], *there[1:], *back[1:]]


def test_without_the_other_method_there_is_no_ratio() -> None:
    clocked = Clocked({"pfc": 1.0})
    (row,) = bench_data(clocked, ["pfc"], EFFORT, now=lambda: clocked.time)  # type: ignore[arg-type]
    assert (row.over_bare, row.over_bare_q1, row.over_pil) == (None, None, None)
    assert format_throughput([row], EFFORT, "source").splitlines()[-1].split()[-2:] == ["-", "-"]


def test_a_wrong_batch_stops_the_run() -> None:
    clocked = Clocked({"pfc": 1.0})
    with pytest.raises(RuntimeError, match="was expected"):
        bench_data(clocked, ["pfc"], dataclasses.replace(EFFORT, batch_size=7), now=lambda: clocked.time)  # type: ignore[arg-type]


def test_dali_gets_one_index_of_the_images_alone(tmp_path: Path) -> None:
    paths = [tmp_path / "a.rec", tmp_path / "b.rec"]
    for number, path in enumerate(paths):
        with RecordWriter(path) as writer:
            for identity in range(4 + number):
                writer.write(identity, b"jpeg" * (identity + 1))
    reader = RecordReader(paths)
    write_filtered_index(reader, tmp_path / "images.idx")
    joined = b"".join(path.read_bytes() for path in paths)
    lines = [line.split("\t") for line in (tmp_path / "images.idx").read_text().splitlines()]
    assert [int(key) for key, _ in lines] == list(range(9))
    for (_, at), record in zip(lines, reader, strict=True):
        assert joined[int(at) + 32 : int(at) + 32 + len(record.jpeg)] == record.jpeg


@pytest.mark.parametrize("files", [1, 3])
def test_opening_files_have_every_record_and_take_no_disk(
    tmp_path: Path, files: int, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_opening_files(tmp_path, 1001, files, seed=1)
    reader = RecordReader(paths)
    assert len(reader) == 1001
    assert sum(path.stat().st_size for path in paths) > 3_000_000 > 100 * sum(path.stat().st_blocks for path in paths)
    sizes = np.concatenate([np.diff(shard.offsets.at(slice(None))) for shard in reader.shards])
    assert (sizes >= 3000).all()
    assert (sizes < 7000).all()
    assert (reader[0].identity, reader[1000].identity) == (0, files - 1)
    with pytest.raises(DataError):
        _ = reader[1]  # a hole
    for method in ("pfc", "python-dict"):
        probe(method, *map(str, paths[:1]))
        assert f'"records": {len(reader.shards[0])}' in capsys.readouterr().out


def test_the_shuffle_never_ends_and_repeats_nothing() -> None:
    positions = iter(EndlessShuffle(7, seed=3))
    for _ in range(3):
        assert sorted(next(positions) for _ in range(7)) == list(range(7))


ROWS = [ThroughputRow(method, 1000.0, 900.0, 1100.0, 0.95, 0.9, 1.0, 3.1) for method in METHODS]
OPENED = [
    OpeningRow("pfc", 10_000_000, 1, 1.25, 100 << 20, 60 << 20),
    OpeningRow("python-dict", 10, 1, 9.0, 1 << 30, 9),
]


def test_tables_csv_and_picture_hold_every_row(tmp_path: Path) -> None:
    text = format_throughput(ROWS, EFFORT, "9 images of a.rec")
    assert text.splitlines()[0] == "9 images of a.rec"
    assert "4 rounds of 5 batches" in text
    assert text.count("0.95x (0.90-1.00)") == len(METHODS)
    assert format_opening(OPENED).splitlines()[1].split() == ["pfc", "10,000,000", "1", "1.25", "100", "60"]
    write_csv(tmp_path / "out.csv", ROWS, OPENED)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["measurement"] for row in rows] == ["throughput"] * len(METHODS) + ["opening"] * 2
    assert (rows[0]["seconds"], rows[-1]["images_per_second"], rows[-2]["seconds"]) == ("", "", "1.25")
    for throughput, opening in ((ROWS, OPENED), (ROWS, []), ([], OPENED)):
        write_picture(tmp_path / "out.png", throughput, opening, EFFORT)
        assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--records", "nowhere.rec"], "cannot open nowhere.rec"),
        (["--images", "0"], "--images must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--workers", "-1"], "--workers must be at least 0"),
        (["--index-records", "5"], "--index-records 5"),
        (["--png", "nowhere/out.png"], "no such folder"),
        (["--device", "cuda:99"], "not on this machine"),
    ],
)
def test_bad_arguments(wrong: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_data_command, "keep_freed_memory", lambda: True)  # not in the tests' own process
    parser = argparse.ArgumentParser()
    bench_data_command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["data", *wrong])
    with pytest.raises((DataError, ConfigError), match=message):
        arguments.handler(arguments)
