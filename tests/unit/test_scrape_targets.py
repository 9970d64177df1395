"""The target file that rank 0 writes for Prometheus: what is in it, when it is there, who may remove it."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch

from trainer.errors import ConfigError
from trainer.scrape_targets import gather_addresses, scraped_host, write_targets
from trainer.world import World

pytestmark = pytest.mark.unit

ALONE = World(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
ADDRESSES = ["node-a:9500", "node-b:9500"]
LABELS = {"job": "ms1mv2_r50"}


def test_one_group_per_rank_with_its_labels(tmp_path: Path) -> None:
    with write_targets(tmp_path / "run.json", ADDRESSES, LABELS) as path:
        assert json.loads(path.read_text()) == [
            {"targets": ["node-a:9500"], "labels": {"job": "ms1mv2_r50", "rank": "0", "listed_by": "pfc"}},
            {"targets": ["node-b:9500"], "labels": {"job": "ms1mv2_r50", "rank": "1", "listed_by": "pfc"}},
        ]
        assert list(tmp_path.iterdir()) == [path], "no temporary file beside it"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_its_targets(tmp_path: Path) -> None:
    def fail() -> None:
        with write_targets(tmp_path / "run.json", ADDRESSES, LABELS):
            raise RuntimeError("rank 1 is gone")

    with pytest.raises(RuntimeError, match="rank 1 is gone"):
        fail()
    assert (tmp_path / "run.json").exists(), "Prometheus must go on seeing that they are down"


def test_the_next_run_takes_the_file_over(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("[left by a run that was killed]")
    with write_targets(path, ADDRESSES, LABELS):
        assert len(json.loads(path.read_text())) == 2


def test_a_file_written_anew_by_another_process_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with write_targets(path, ADDRESSES, LABELS):
        same = path.read_bytes()
        successor = tmp_path / "successor"
        successor.write_bytes(same)
        successor.replace(path)
    assert path.read_bytes() == same


def test_a_file_that_somebody_removed_is_no_trouble(tmp_path: Path) -> None:
    with write_targets(tmp_path / "run.json", ADDRESSES, LABELS) as path:
        path.unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "way_out"),
    [("run.txt", "call it NAME.json"), ("missing/run.json", "No such file or directory.*make its folder")],
)
def test_a_path_that_will_not_do(tmp_path: Path, name: str, way_out: str) -> None:
    with pytest.raises(ConfigError, match=f"metrics.targets_file .*{name}.*{way_out}") as caught:
        write_targets(tmp_path / name, ADDRESSES, LABELS).__enter__()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_file_s_place(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(ConfigError, match=r"run\.json: cannot be written"):
        write_targets(tmp_path / "run.json", ADDRESSES, LABELS).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"], "no temporary file is left"


@pytest.mark.parametrize("name", ["run-name", "9", "", "__address__", "rank", "listed_by"])
def test_labels_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be set on targets"):
        write_targets(tmp_path / "run.json", ADDRESSES, {name: "x"}).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_it(tmp_path: Path) -> None:
    """Prometheus runs as a user of its own."""
    before = os.umask(0o022)
    try:
        with write_targets(tmp_path / "run.json", ADDRESSES, LABELS) as path:
            assert path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_addresses_as_a_url_takes_them() -> None:
    assert gather_addresses(ALONE, "10.0.0.1", 9500) == ["10.0.0.1:9500"]
    assert gather_addresses(ALONE, "fd00::1", 9501) == ["[fd00::1]:9501"]


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::"])
def test_who_listens_everywhere_is_reached_by_name(address: str) -> None:
    assert scraped_host(address) == socket.gethostname()


def test_who_listens_on_one_address_is_reached_there() -> None:
    assert scraped_host("127.0.0.1") == "127.0.0.1"
