"""``python -m deploy.dashboards.generate [--check]``: write the JSON files, or say which are not current."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.pending_file import write_file
from deploy.dashboards.description import DESCRIPTION, read_description
from deploy.dashboards.grafana import dashboard_json

FOLDER = Path(__file__).parent


def rendered(description: Path = DESCRIPTION) -> dict[str, str]:
    """File name -> content."""
    described = read_description(description)
    return {
        f"{dashboard.file}.json": json.dumps(dashboard_json(dashboard, described), indent=2, sort_keys=True) + "\n"
        for dashboard in described.dashboard
    }


def stale(folder: Path, files: dict[str, str]) -> list[str]:
    """Names of files that are missing, differ, or are described no more."""
    here = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in here.keys() | files.keys() if here.get(name) != files.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done or current, 1 not current, 2 a description that cannot be used. Files described no more are left alone."""
    parser = argparse.ArgumentParser(prog="python -m deploy.dashboards.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not current")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=FOLDER, help="default: beside panels.toml")
    parsed = parser.parse_args(arguments)
    try:
        files = rendered()
    except ValueError as error:
        print(f"{DESCRIPTION}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    outdated = stale(parsed.output, files)
    if parsed.check:
        for name in outdated:
            print(f"{parsed.output / name} is not current: python -m deploy.dashboards.generate", file=sys.stderr)
        return bool(outdated)
    for name in outdated:
        if name in files:
            write_file(parsed.output / name, files[name])
            print(parsed.output / name)
        else:
            print(f"{parsed.output / name} is not described in {DESCRIPTION.name}: remove it", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
