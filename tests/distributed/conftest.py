"""Processes of one world size start once for all tests of the sharded head."""

from collections.abc import Callable
from typing import Any

import pytest
from gang import run_gang
from head_training import everything_on_one_rank


@pytest.fixture(scope="session")
def head_gang(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[dict[str, Any]]]:
    """``head_gang(W)``: what each of W ranks returned from ``everything_on_one_rank``."""
    results: dict[int, list[dict[str, Any]]] = {}

    def of_world(world_size: int) -> list[dict[str, Any]]:
        if world_size not in results:
            folder = tmp_path_factory.mktemp("gang") / str(world_size)
            results[world_size] = run_gang(world_size, everything_on_one_rank, folder=folder)
        return results[world_size]

    return of_world
