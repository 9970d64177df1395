"""A rank that has left the process group keeps none of its threads: they could abort the interpreter at its exit."""

import sys
import sysconfig
from pathlib import Path

from tests.support.commands import run

SCRIPT = """
from pathlib import Path
import torch
import torch.distributed as dist
from trainer.world import joined_world

def gloo_threads() -> list[str]:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sorted(name for name in names if "gloo" in name)

with joined_world("cpu", expected_size=2, timeout_seconds=60.0) as world:
    weight = torch.nn.Parameter(torch.ones(3))
    torch.optim.SGD([weight], lr=0.1)  # the first optimizer imports half of torch
    dist.all_reduce(torch.ones(1))
    joined = gloo_threads()
Path(f"rank{world.rank}").write_text(f"{bool(joined)} {gloo_threads()}")
"""


def test_no_thread_of_the_process_group_is_left(tmp_path: Path) -> None:
    (tmp_path / "leave.py").write_text(SCRIPT)
    launcher = str(Path(sysconfig.get_path("scripts")) / "torchrun")
    done = run([sys.executable, launcher, "--standalone", "--nproc-per-node", "2", "leave.py"], cwd=tmp_path)
    assert done.code == 0, done.err
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["True []", "True []"]
