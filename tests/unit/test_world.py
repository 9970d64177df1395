"""The launcher's environment and the choice of a device."""

import pytest
import torch

from trainer.errors import ConfigError
from trainer.world import choose_device, joined_world, launched_place, rank_prefix

pytestmark = pytest.mark.unit

LAUNCHED = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def test_place() -> None:
    assert launched_place({}) == (0, 1, 0)
    assert launched_place(LAUNCHED) == (3, 4, 1)
    assert rank_prefix(LAUNCHED) == "rank 3: "
    assert rank_prefix({}) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": "4"}, "RANK 4 of WORLD_SIZE 4"),
        ({"RANK": "x"}, "must be whole numbers"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR missing"),
    ],
)
def test_half_an_environment_is_refused(change: dict[str, str | None], message: str) -> None:
    environment = {key: value for key, value in (LAUNCHED | change).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        launched_place(environment)


def test_a_contradicted_world_size_is_refused_before_joining() -> None:
    with (
        pytest.raises(ConfigError, match=r"run.world_size is 2, the launcher started 4: use torchrun"),
        joined_world("cpu", expected_size=2, timeout_seconds=1, environment=LAUNCHED),
    ):
        pass


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 0) == choose_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(ConfigError, match="needs GPU 1 for local rank 1, this machine has 0"):
        choose_device("cuda", 1)
    with pytest.raises(ConfigError, match="'gpu' is unknown"):
        choose_device("gpu", 0)
    with pytest.raises(ConfigError, match="'mps' is unknown"):
        choose_device("mps", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1) == choose_device("cuda", 1) == torch.device("cuda", 1)
    assert choose_device("cuda:0", 1) == torch.device("cuda", 0)
