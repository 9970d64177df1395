"""Imports run one way: partial_fc and data_pipeline know neither each other nor the trainer."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "partial_fc": {"partial_fc"},
    "data_pipeline": {"data_pipeline"},
    "trainer": {"trainer", "partial_fc", "data_pipeline"},
    "deploy": {"deploy", "partial_fc", "data_pipeline"},
}
FORBIDDEN_MODULE_NAMES = {"utils", "common"}
READ_THE_ENVIRONMENT = {
    "trainer/world.py",
    "deploy/launch/agent.py",  # sets what torch reads when it is loaded
    "deploy/launch/elastic.py",
    "deploy/submit/environment.py",
    "deploy/submit/docker.py",  # DOCKER_HOST, and which variables of the shell containers get by name
}


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the package so that the direction shows"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    for path in files:
        wrong = (imported_packages(path) & ALLOWED.keys()) - ALLOWED[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
        assert path.stem not in FORBIDDEN_MODULE_NAMES, path


@pytest.mark.parametrize("package", ALLOWED)
def test_one_file_reads_the_environment(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        if str(path.relative_to(ROOT)) in READ_THE_ENVIRONMENT:
            continue
        text = path.read_text(encoding="utf-8")
        assert "os.environ" not in text, path
        assert "getenv" not in text, path


@pytest.mark.parametrize("package", ALLOWED)
def test_no_bare_pickle(package: str) -> None:
    """No input file can execute code: no unpickling, no torch.load that trusts the file."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            call = f"{owner}.{node.func.attr}"
            assert call not in {"pickle.load", "pickle.loads", "yaml.load"}, (path, node.lineno)
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if call == "torch.load":
                trusted = keywords.get("weights_only")
                assert isinstance(trusted, ast.Constant), (path, node.lineno)
                assert trusted.value is True, (path, node.lineno)
            if call in {"np.load", "numpy.load"}:
                allowed = keywords.get("allow_pickle")
                assert allowed is None or (isinstance(allowed, ast.Constant) and allowed.value is False), path
