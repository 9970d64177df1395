"""Where ``pfc top`` looks, and what it says of places that are none."""

import json
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.top.endpoints import Endpoint, Machine, find_sources, parse_endpoint, read_targets

pytestmark = pytest.mark.unit

RUN = '[run]\noutput = "run"\n[data]\nrecords = "faces"\n[train]\nsteps = 1\n'


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("node-a:9500", Endpoint("node-a", 9500)),
        ("10.0.0.7:1", Endpoint("10.0.0.7", 1)),
        ("[::1]:9500", Endpoint("::1", 9500)),
        ("node-a", None),
        ("node-a:0", None),
        ("node-a:65536", None),
        ("node-a:9500/metrics", None),
        ("a\r\nb:9500", None),
        (":9500", None),
    ],
)
def test_host_and_port(text: str, endpoint: Endpoint | None) -> None:
    assert parse_endpoint(text) == endpoint
    if endpoint is not None:
        assert str(endpoint) == text


def test_a_run_and_its_folder_name_the_first_port(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(RUN + "[metrics]\nport = 9600\n")
    assert find_sources([str(config), str(tmp_path)], None).machines == (Machine(Endpoint("127.0.0.1", 9600), "run"),)
    config.write_text(RUN + '[metrics]\nport = 9600\naddress = "10.1.2.3"\n')
    sources = find_sources([str(config), "node-b:9600"], None)
    assert sources.machines == (Machine(Endpoint("10.1.2.3", 9600), "run"), Machine(Endpoint("node-b", 9600)))


def test_targets_of_prometheus(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text(json.dumps([{"targets": ["a:9500", "a:9501"], "labels": {"x": "y"}}, {"targets": ["a:9500"]}]))
    assert read_targets(path) == (Endpoint("a", 9500), Endpoint("a", 9501))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "no list of target groups"),
        ('["a:9500"]', "no list of target groups"),
        ('[{"targets": "a:9500"}]', "no list of target groups"),
        ('[{"targets": [9500]}]', "'9500' is no host:port"),
        ('[{"targets": ["http://a:9500/metrics"]}]', "is no host:port"),
        (" " * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_targets_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_targets(path)


def test_places_that_are_none(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(RUN)
    cases = {
        "say what to watch": [],
        "metrics.port is not set": [str(config)],
        "neither a run's configuration nor HOST:PORT": ["node-a"],
        "no such file": [str(tmp_path / "..")],
    }
    for message, places in cases.items():
        with pytest.raises(ConfigError, match=message):
            find_sources(places, None)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_sources([], tmp_path / "absent.json")
