"""``pfc report``'s two kinds of report are not mixed up; what needs no server is refused without one."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import trainer
from trainer.cli import main
from trainer.dashboards.grafana_file import SHIPPED

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
NOBODY = ["--prometheus", "http://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give RUN_DIR, the folder of a run, or --prometheus URL"),
        (["run", *NOBODY], "run: RUN_DIR and --prometheus ask for different reports: leave one out"),
        (["run", "--job", "a"], "--job is about dashboards as pictures: give --prometheus URL, too"),
        (["run", "--from", "now-1h"], "--from is about dashboards as pictures"),
        ([*NOBODY, "--last", "1x"], "--last 1x: not a length of time"),
        ([*NOBODY, "--last", "1h", "--from", "now-1h"], "--from and --last both say"),
        ([*NOBODY, "--dashboard", "jobs"], "there are data, head, one-job, overview, ranks"),
        ([*NOBODY, "--dashboards", "/dev/null"], "no folder with Grafana's .json files"),
        (["--prometheus", "ftp://host"], "--prometheus: only http:// and https:// addresses"),
        ([*NOBODY], "http://127.0.0.1:1 cannot be reached (Connection refused)"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text("mine")
    assert main(["report", *NOBODY, "--output", str(tmp_path / "report.html")]) == 2
    assert "not a folder; with --prometheus it takes several pictures" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "mine"


def test_the_dashboards_come_with_the_product() -> None:
    """They are data of a package that is installed, beside the trainer's own."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["deploy.dashboards"]
    files = [path.name for path in SHIPPED.iterdir() if path.suffix in (".json", ".toml")]
    assert len(files) == 6
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in files)
    assert (SHIPPED / "__init__.py").is_file()
    assert "deploy*" in settings["packages"]["find"]["include"]
    assert SHIPPED.relative_to(Path(trainer.__file__).parents[1]) == Path("deploy/dashboards")
