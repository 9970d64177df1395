"""``pfc top`` beside a real training of two ranks: as text, at a terminal, after a rank is killed."""

import json
import os
import re
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import pfc, ranks_of, run, running, torchrun
from prometheus_server import free_ports, wait_for
from rank_exporter import RankMetrics, served
from small_faces import make_small_faces, write_run
from terminal import terminal

pytestmark = pytest.mark.integration

RANKS = 2


@dataclass(frozen=True)
class Training:
    folder: Path
    config: Path
    output: Path
    port: int
    mark: str

    def top(self, *arguments: str | Path) -> str:
        shown = run(pfc("top", *arguments, "--once"), cwd=self.folder)
        assert shown.code == 0, shown.err
        assert shown.err == ""
        return shown.out


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """Two ranks that have taken steps and saved a checkpoint."""
    folder, port, mark = tmp_path_factory.mktemp("top"), free_ports(RANKS), uuid.uuid4().hex
    config = write_run(
        folder / "run.toml",
        output=folder / "run",
        faces=make_small_faces(folder / "faces"),
        steps=1_000_000,
        batch_size=5,
    )
    with config.open("a") as file:
        file.write(f'[metrics]\nport = {port}\naddress = "127.0.0.1"\n')
    command = torchrun(RANKS, "train", config)
    with running(command, cwd=folder, mark=mark, printed=folder / "printed.txt") as process:

        def is_under_way() -> bool:
            assert process.poll() is None, (folder / "printed.txt").read_text()
            return any((folder / "run/checkpoints").glob("step_*"))

        wait_for(is_under_way, "a checkpoint", deadline_seconds=120)
        yield Training(folder, config, folder / "run", port, mark)


def test_every_way_to_name_a_run(training: Training) -> None:
    targets = training.folder / "targets.json"
    targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{training.port + rank}" for rank in range(RANKS)]}]))
    ways: list[tuple[str | Path, ...]] = [
        (training.config,),
        (training.output,),
        (f"127.0.0.1:{training.port}",),
        ("--targets", targets),
    ]
    for way in ways:
        out = training.top(*way)
        assert "[2 up]" in out, way
        for rank in range(RANKS):
            assert f"127.0.0.1:{training.port + rank}" in out


def test_the_figures_are_those_of_the_run(training: Training) -> None:
    before = len((training.output / "metrics.jsonl").read_text().splitlines())
    out = training.top(training.config)
    after = len((training.output / "metrics.jsonl").read_text().splitlines())
    found = re.search(r"step ([0-9,]+)/1,000,000", out)
    assert found is not None, out
    assert before <= int(found[1].replace(",", "")) <= after + 1
    for words in ("mobilefacenet  9 classes  63 images  2 ranks  on cpu", "accuracy -"):
        assert words in out
    for pattern in (
        r"epoch [0-9.]+",
        r"ETA \d+ (min|h|d)",
        r"loss -?[0-9.]+",
        r"own center [0-9.]+°, others [0-9.]+°",
        r"active pairs [0-9,]+",
        r"path (dense|screened) ",
        r"checkpoint \d+ s ago \(step \d+\)",
    ):
        assert re.search(pattern, out), pattern
    rows = [line for line in out.splitlines() if "127.0.0.1:" in line]
    for row in rows:
        phases = [int(cell[:-1]) for cell in row.split() if re.fullmatch(r"\d+%", cell)][-6:]
        assert len(phases) == 6, row
        assert sum(phases) == pytest.approx(100, abs=3), row


@pytest.mark.parametrize("leave", ["q", "\x03"])
def test_the_table_lives_at_a_terminal(training: Training, leave: str) -> None:
    mark = uuid.uuid4().hex
    command = pfc("top", training.config, "--interval", "0.2")
    with terminal(command, cwd=training.folder, mark=mark, columns=70) as shown:
        shown.wait_until("[2 up]")
        shown.wait_until("▁")  # a trend: several refreshes
        assert "\x1b[?1049h" in shown.raw, "on a screen of its own"
        assert "endpoint" not in shown.text, "no room for it"
        shown.press(leave)
        assert shown.code() == 0
        assert shown.raw.rindex("\x1b[?1049l") > shown.raw.rindex("\x1b[?1049h"), "the old screen is back"
        assert shown.raw.rindex("\x1b[?25h") > shown.raw.rindex("\x1b[?25l"), "and the cursor"
        assert shown.echoes


def test_a_pipe_gets_plain_text_and_may_be_closed(training: Training) -> None:
    command = " ".join(pfc("top", training.config, "--interval", "0.2"))
    piped = run(["bash", "-c", f"set -o pipefail; {command} | head -12"], cwd=training.folder)
    assert (piped.code, piped.err) == (0, "")
    assert "\x1b" not in piped.out
    assert piped.out.count("[2 up]") >= 2


def test_a_killed_rank_is_gone(training: Training, tmp_path: Path) -> None:
    """The last test of this run: its ranks end with the killed one."""
    os.kill(ranks_of(training.mark)[1], signal.SIGKILL)
    wait_for(lambda: not ranks_of(training.mark), "the run has ended", deadline_seconds=100)
    failed = run(pfc("top", training.config, "--once"), cwd=training.folder)
    assert failed.code == 2
    assert "no rank answers" in failed.error_lines[0]


def test_a_rank_that_ends_meanwhile_is_shown_as_gone(tmp_path: Path) -> None:
    base, mark = free_ports(2), uuid.uuid4().hex
    command = pfc("top", f"127.0.0.1:{base}", "--interval", "0.2")
    with ExitStack() as second, served({base: RankMetrics(rank=0, steps=5)}):
        second.enter_context(served({base + 1: RankMetrics(rank=1, steps=5)}))
        with terminal(command, cwd=tmp_path, mark=mark, columns=160) as shown:
            shown.wait_until("[2 up]")
            second.close()
            shown.wait_until("[1 up, 1 gone]")
            shown.wait_until(f"127.0.0.1:{base + 1}: connection refused")
            shown.process.send_signal(signal.SIGTERM)
            assert shown.code() == 0
            assert shown.echoes
