"""Whether this node's ranks are well, by exit code, for whoever can only start a command: Docker's HEALTHCHECK.

python -m deploy.launch.health [RANKS [RUN.toml]]
"""

import json
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

CONFIG = "/etc/pfc/run.toml"
ANSWER_SECONDS = 5.0
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}


def complaints(config: Path, ranks: int) -> list[str]:
    """One line for each of this node's ranks that does not answer or is not well; none without metrics.port."""
    try:
        metrics: dict[str, Any] = tomllib.loads(config.read_text(encoding="utf-8")).get("metrics", {})
    except (OSError, ValueError) as error:
        return [f"{config}: cannot be read ({error})"]
    port = metrics.get("port")
    if port is None:
        return []
    address = metrics.get("address", "127.0.0.1")
    host = _ANY_ADDRESS.get(address, f"[{address}]" if ":" in address else address)
    answers = ((rank, _complaint(f"http://{host}:{port + rank}/healthz")) for rank in range(ranks))
    return [f"local rank {rank}: {text}" for rank, text in answers if text]


def _complaint(url: str) -> str:
    """What is wrong; "" where nothing is."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
            return ""
    except urllib.error.HTTPError as refusal:
        with refusal:
            try:
                return str(json.loads(refusal.read())["text"])
            except (ValueError, KeyError, TypeError):
                return f"{url} answers {refusal.code}"
    except OSError as error:  # nobody listens, or nobody answers
        return f"{url}: {getattr(error, 'reason', error)}"


def main() -> int:
    """Print what is wrong; 0 where nothing is, else 1."""
    given = dict(enumerate(sys.argv))
    ranks, config = given.get(1, "1"), given.get(2, CONFIG)
    found = complaints(Path(config), int(ranks) if ranks.isdecimal() else 1)  # torchrun knows "gpu" and "auto", too
    print("\n".join(found) or "well")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
