"""Prints what a pyproject.toml requires, but not the project: python3 requirements.py PYPROJECT EXTRA,EXTRA..."""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """One requirement a line, as pip reads them. Raises KeyError for an extra that the project does not have."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


if __name__ == "__main__":
    wanted = [extra for extra in sys.argv[2].split(",") if extra]
    try:
        print("\n".join(requirements(Path(sys.argv[1]), wanted)))
    except KeyError as unknown:
        sys.exit(f"EXTRAS: pyproject.toml has no extra {unknown}")
