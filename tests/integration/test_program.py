"""The process of ``pfc``: its exit code stands, whatever is still running when it ends."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

# What a checkpoint's thread does: native code of torch's, again and again, until the process is gone.
BUSY = """
import sys, threading, torch
import trainer.cli

matrix = torch.zeros(300, 300)

def work():
    while True:
        matrix @ matrix

def main():
    threading.Thread(target=work, daemon=True).start()
    print("said")
    {ending}

trainer.cli.main = main
from trainer.program import program
program()
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("return 0", 0),
        ("return 75", 75),
        ("sys.exit(2)", 2),
        ("sys.exit()", 0),
        ("sys.exit('a word')", 1),
        ("raise ValueError('nobody expected this')", 1),
    ],
)
def test_a_thread_in_native_code_does_not_change_the_exit_code(ending: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BUSY.format(ending=ending)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "said\n"
    assert ("nobody expected this" in ended.stderr) == ("ValueError" in ending)


def test_asking_about_runs_is_a_matter_of_a_moment() -> None:
    """torch, seconds of it, is for commands that need it: the errors of all others, too."""
    program = """
import sys
from trainer.cli import main

assert main(["status", "absent"]) == main(["submit", "local", "absent.toml", "--name", "No_Name"]) == 2
assert "torch" not in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
