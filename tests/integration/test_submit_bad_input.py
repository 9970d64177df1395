"""Bad input of ``pfc submit`` to local, Docker and Slurm, without their engines: one line, and nothing left behind.

Kubernetes: test_kubernetes_command.py. With the engines: tests/system/test_docker.py, test_slurm.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_faces import make_small_faces, write_run
from submitting import Account, account

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Account]:
    with account(tmp_path, PATH=str(tmp_path / "no-programs")) as made:
        yield made


MANY = ["--nodes", "2", "--ranks-per-node", "5", "--set", "data.batch_size=2"]
IMAGE = ["--image", "pfc:1"]
CASES = [
    ("local", ["--name", "My_Faces"], "--name My_Faces: use lower-case letters, digits and '-'", 2),
    ("docker", ["--name", "1st"], "--name 1st: use lower-case letters, digits and '-'", 2),
    ("slurm", ["--name", "x" * 41], "at most 40 characters; " + "x" * 40 + " would do", 2),
    ("docker", [*MANY, *IMAGE, "--set", "data.num_identities=9"], "9 identities for 10 ranks: .* start fewer ranks", 2),
    ("slurm", MANY, "9 identities for 10 ranks: some would hold no class center; start fewer ranks", 2),
    ("local", ["--set", "data.records=absent"], "absent: No such file or directory; give the path of a .rec file", 2),
    ("slurm", ["--set", "data.records=absent"], "absent: No such file or directory; give the path of a .rec file", 2),
    ("docker", [*IMAGE, "--volume", "/absent:/data:ro"], "volume /absent: there is no such folder on this machine", 2),
    ("slurm", [], "sbatch is not on this machine", 2),
]


@pytest.mark.parametrize(("target", "arguments", "told", "code"), CASES)
def test_one_line_and_nothing_left(
    user: Account, faces: Path, tmp_path: Path, target: str, arguments: list[str], told: str, code: int
) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    line = user.refused("submit", target, config, *arguments, code=code)
    parts = told.split(".*")
    assert all(part in line for part in parts), line
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"run.toml", "state/.lock"}
    assert not (tmp_path / "out").exists()


def test_exporters_of_containers_listen_to_others(user: Account, faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    mounts = ("--volume", f"{faces}:{faces}:ro")
    shown = user.done("submit", "docker", config, *IMAGE, *mounts, "--dry-run", "--set", "metrics.port=9500")
    assert '\naddress = "0.0.0.0"\n' in shown
    shown = user.done("submit", "docker", config, *IMAGE, *mounts, "--dry-run", "--set", 'metrics.address="::"')
    assert '\naddress = "::"\n' in shown
