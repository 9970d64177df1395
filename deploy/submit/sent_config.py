"""What the configuration that is sent says about the world around the run: whom it serves, which files it reads."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

_READ = (("data", "records"), ("evaluation", "pairs"), ("growth", "from"), ("backbone", "pretrained"))


def serves_itself_alone(config_text: str) -> bool:
    """Whether its exporters listen to their own container (or machine) alone."""
    address = str(tomllib.loads(config_text).get("metrics", {}).get("address", "127.0.0.1"))
    return address.startswith("127.") or address in ("localhost", "::1")


def paths_read(config_text: str) -> Iterator[tuple[str, Path]]:
    """What the run will read: key of the configuration and path."""
    values = tomllib.loads(config_text)
    for table, key in _READ:
        given = values.get(table, {}).get(key, [])
        for path in [given] if isinstance(given, str) else given:
            yield f"{table}.{key}", Path(path)
