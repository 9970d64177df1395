"""Three ranks on two machines: all know the addresses in rank order, rank 0 lists them, all learn if it cannot."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from gang import run_gang

from trainer.agreement import first_rank_decides
from trainer.errors import ConfigError
from trainer.scrape_targets import gather_addresses, write_targets
from trainer.world import World

pytestmark = pytest.mark.distributed

HOSTS, LOCAL_RANKS = ("node-a", "node-a", "node-b"), (0, 1, 0)
EXPECTED = ["node-a:9500", "node-a:9501", "node-b:9500"]


def list_targets(rank: int, world_size: int, folder: str) -> tuple[list[str], str, str]:
    """Addresses, what the file holds, and what a file that cannot be written says."""
    world = World(rank, world_size, LOCAL_RANKS[rank], torch.device("cpu"))
    addresses = gather_addresses(world, HOSTS[rank], 9500 + LOCAL_RANKS[rank])
    with ExitStack() as stack:

        def announce(name: str) -> str:
            path = Path(folder) / name
            return str(stack.enter_context(write_targets(path, addresses, {"job": "three_ranks"})))

        path = Path(first_rank_decides(world, lambda: announce("run.json")))
        listed = path.read_text()
        try:
            first_rank_decides(world, lambda: announce("missing/run.json"))
        except ConfigError as error:
            complaint = str(error)
    return addresses, listed, complaint


def test_rank_0_lists_all(tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    found = run_gang(3, list_targets, str(targets), folder=tmp_path / "gang")
    for addresses, listed, complaint in found:
        assert addresses == EXPECTED
        assert [group["targets"][0] for group in json.loads(listed)] == EXPECTED
        assert [group["labels"]["rank"] for group in json.loads(listed)] == ["0", "1", "2"]
        assert "missing/run.json: cannot be written (No such file or directory)" in complaint
    assert list(targets.iterdir()) == [], "and takes the list away at the end"
