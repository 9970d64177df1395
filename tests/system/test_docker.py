"""A real Docker engine, the images of docker/ on it, and runs sent there as ``pfc submit docker`` sends them.

One run goes through most of it: each test finds it where the one before has left it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from checkpoint_reading import assert_identical, everything
from commands import launch, run
from docker_engine import (
    BASE,
    CannotRunError,
    build,
    build_context,
    compose_command,
    docker,
    docker_engine,
    import_base,
    missing,
    storage_driver,
)
from rank_log import RankLog
from small_faces import make_small_faces, write_run

from deploy.submit.docker import TARGET
from deploy.submit.docker_commands import DockerOptions
from deploy.submit.docker_engine import complaint
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Resources, Volume
from deploy.submit.target import Status

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(missing() != "", reason=missing()),
    pytest.mark.timeout(900),  # the first test waits for the image
]

IMAGE = "pfc:test"
GPU_IMAGE = "pfc:gpu-test"
STEPS = 40
OWNER = 12345
METRICS = '[metrics]\nport = 9500\naddress = "0.0.0.0"\n'


@dataclass
class Run:
    """A run on two nodes, and where it is on this machine."""

    job: Job
    faces: Path
    output: Path

    def __post_init__(self) -> None:
        self._log = RankLog(self.output / "logs" / "rank_0000.jsonl")

    @contextmanager
    def started(self, start: Callable[[], object], *, steps: int = 3) -> Iterator[None]:
        """In the block it has taken some steps since ``start``."""
        starts = self._log.update().starts
        start()
        wait_until(lambda: self._log.update().starts > starts and self._log.step >= self._log.events[0]["step"] + steps)
        yield

    def like(self, name: str, *, steps: int) -> "Run":
        """Another run, of that name and length."""
        text = self.job.config_text.replace("/runs/out", f"/runs/{name}").replace(
            f"steps = {STEPS}\n", f"steps = {steps}\n"
        )
        job = replace(self.job, name=name, config_text=text, output=Path("/runs") / name)
        return Run(job, self.faces, self.output.with_name(name))

    def codes(self) -> list[int]:
        """Exit codes of the nodes once all have ended."""
        wait_until(lambda: TARGET().status(self.job.name).state != "running")
        told = docker("inspect", "--format", "{{.State.ExitCode}}", *(f"{self.job.name}-{node}" for node in (0, 1)))
        return [int(code) for code in told.split()]


def wait_until(happened: Callable[[], object], *, deadline_seconds: float = 120.0) -> None:
    end = time.monotonic() + deadline_seconds
    while not happened():
        assert time.monotonic() < end, docker("ps", "--all")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image on an engine to which every docker command of this module goes; yields the folder it was built from."""
    sources, place = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("engine")
    try:
        driver = storage_driver(place)
    except CannotRunError as error:
        pytest.skip(f"no Docker engine can run here: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_BUILDKIT", "0")
        with docker_engine(place, driver, network="host") as host:
            patch.setenv("DOCKER_HOST", host)
            import_base(tmp_path_factory.mktemp("base"))
            arguments = {"BASE_IMAGE": BASE, "PIP_NO_INDEX": "1"}
            build(build_context(sources), IMAGE, arguments, file="docker/Dockerfile.cpu")
            # Every line of the file for GPUs, with a torch that can be had here; all layers are there already.
            build(sources, GPU_IMAGE, arguments | {"EXTRAS": "", "TORCH": "cpu"}, file="docker/Dockerfile")
        with docker_engine(place, driver, network="own"):
            yield sources
    for folder in (sources, place):  # gigabytes, which pytest would keep of three runs
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def the_run(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    faces, runs = make_small_faces(folder / "faces"), folder / "runs"
    runs.mkdir()
    for path in (runs, faces):
        path.chmod(0o755)
    os.chown(runs, OWNER, OWNER)
    config = write_run(folder / "run.toml", output=Path("/runs/out"), faces=Path("/data"), steps=STEPS)
    text = config.read_text().replace("[data]", '[data]\ndecoder = "cpu"') + METRICS
    job = Job(
        name="faces",
        config=config,
        config_text=text,
        output=Path("/runs/out"),
        nodes=2,
        image=IMAGE,
        resources=Resources(cpus="2", memory="4Gi", shm="128Mi"),
        volumes=(Volume(str(faces), "/data", read_only=True), Volume(str(runs), "/runs")),
        environment={"OMP_NUM_THREADS": "1"},
        grace_seconds=120,
        metrics_port=9500,
    )
    return Run(job, faces, runs / "out")


INSIDE = """
import json, os, shutil
from importlib.metadata import distributions
from data_pipeline import native_library
from partial_fc import native_library as kernels
print(json.dumps({
    "user": os.getuid(),
    "tools": [each for each in ("g++", "gcc", "cc", "pip") if shutil.which(each)],
    "kernels": [kernels.available(), native_library.available()],
    "versions": {each.name: each.version.partition("+")[0] for each in distributions()},
}))
"""


def test_the_image_is_small_pinned_and_not_roots(context: Path) -> None:
    found = json.loads(docker("run", "--rm", "--network", "none", "--read-only", IMAGE, "python", "-c", INSIDE))
    assert (found["user"], found["tools"], found["kernels"]) == (10001, [], [True, True])
    lines = (context / "constraints.txt").read_text().splitlines()
    pins = {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    versions = {canonical(name): version for name, version in found["versions"].items() if name != "pfc"}
    assert versions == {name: pins.get(name) for name in versions}
    assert int(docker("inspect", "--format", "{{.Size}}", IMAGE)) < 1.25e9


def test_the_image_for_gpus_is_the_same_and_asks_for_the_driver(context: Path) -> None:
    """What of it can be known without CUDA."""
    layers = [json.loads(docker("inspect", "--format", "{{json .RootFS.Layers}}", each)) for each in (IMAGE, GPU_IMAGE)]
    assert layers[0] == layers[1]
    told = [json.loads(docker("inspect", "--format", "{{json .Config}}", each)) for each in (IMAGE, GPU_IMAGE)]
    told[0]["Env"].append("NVIDIA_DRIVER_CAPABILITIES=compute,utility,video")
    for key in ("Env", "Cmd", "User", "WorkingDir", "Healthcheck"):
        assert told[0][key] == told[1][key]


def test_a_torch_of_the_wrong_kind_is_no_image(context: Path) -> None:
    told = failing(
        "build", "--network", "host", "--file", "docker/Dockerfile", "--build-arg", f"BASE_IMAGE={BASE}",
        "--build-arg", "PIP_NO_INDEX=1", "--build-arg", "EXTRAS=", ".", cwd=context,
    )  # fmt: skip
    assert "is built for cpu, not for cuda: see docker/README.md, Build" in told


def test_the_health_check_of_a_running_container(the_run: Run, tmp_path: Path) -> None:
    """As docker/README.md starts one by hand, and asked more often than every 30 s."""
    healthy = the_run.like("healthy", steps=100_000)
    (tmp_path / "run.toml").write_text(healthy.job.config_text)
    volumes = {tmp_path / "run.toml": "/etc/pfc/run.toml:ro", the_run.faces: "/data:ro", healthy.output.parent: "/runs"}
    docker(
        "run", "--detach", "--name", "healthy", "--network", "none", "--init", "--read-only", "--tmpfs", "/tmp:exec",
        "--shm-size", "1g", "--stop-timeout", "120", "-e", "PET_NPROC_PER_NODE=2", "--user", f"{OWNER}:{OWNER}",
        "--health-interval", "1s", "--health-start-period", "2m", "--health-retries", "2",
        *(word for source, target in volumes.items() for word in ("-v", f"{source}:{target}")), IMAGE,
    )  # fmt: skip

    def health() -> str:
        return docker("inspect", "--format", "{{.State.Health.Status}}", "healthy")

    wait_until(lambda: health() == "healthy")
    ranks = [
        line.split() for line in docker("top", "healthy", "-eo", "pid,args").splitlines() if "trainer train" in line
    ]
    os.kill(int(ranks[-1][0]), signal.SIGSTOP)  # a rank that no longer answers
    wait_until(lambda: health() == "unhealthy")
    assert "local rank 1: " in docker("inspect", "--format", "{{json .State.Health.Log}}", "healthy")
    docker("rm", "--force", "healthy")


def test_one_container_is_stopped_and_both_end_with_a_checkpoint(the_run: Run) -> None:
    target = TARGET()
    with the_run.started(lambda: target.submit(the_run.job)):
        docker("stop", "faces-1")
        assert the_run.codes() == [75, 75]
    status = target.status("faces")
    assert (status.state, status.exit_code) == ("stopped", 75)
    assert the_run.output.stat().st_uid == OWNER
    assert {path.stat().st_uid for path in (the_run.output / "checkpoints").rglob("*")} == {OWNER}


def test_logs_of_all_nodes_and_of_one_rank(the_run: Run) -> None:
    target = TARGET()
    lines = list(target.logs("faces"))
    assert {line.split(" | ")[0] for line in lines} == {"faces-0", "faces-1"}
    assert lines == sorted(target.logs("faces", follow=True), key=lambda line: line.split(" | ")[0])
    last = "pfc launch: rank 1 exited with 75: exit code 75"
    assert list(target.logs("faces", rank=1))[-1] == last
    with pytest.raises(SubmitError, match=r"faces has no rank 2"):
        target.logs("faces", rank=2)


def test_the_script_continues_it_to_the_weights_of_one_host(the_run: Run, tmp_path: Path) -> None:
    target = TARGET()
    script = target.render(the_run.job)
    assert target.cancel("faces").startswith("faces: stopped, a checkpoint is written"), "it had ended before"
    with the_run.started(lambda: subprocess.run(["sh"], input=script, text=True, check=True, timeout=60), steps=1):
        wait_until(lambda: target.status("faces").state != "running")
    assert target.status("faces") == Status("done", "all 2 nodes ended with 0", 0), list(target.logs("faces"))
    target.cancel("faces")
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=the_run.faces, steps=STEPS)
    config.write_text(config.read_text().replace("[data]", '[data]\ndecoder = "cpu"'))
    here = run(launch(2, "train", config), cwd=tmp_path)
    assert here.code == 0, here.err
    last = f"checkpoints/step_{STEPS:08d}"
    assert_identical(everything(the_run.output / last), everything(tmp_path / "out" / last))


def test_a_long_run_is_looked_at_and_cancelled(the_run: Run) -> None:
    target, long = TARGET(), the_run.like("long", steps=100_000)
    with long.started(lambda: target.submit(long.job)):
        status = target.status("long")
        assert (status.state, status.detail.split(",")[0]) == ("running", "2 of 2 nodes run")
        assert docker("exec", "long-1", "python", "-m", "deploy.launch.health", "1") == "well"
        assert "Read-only file system" in failing("exec", "--user", "0", "long-0", "touch", "/opt/pfc/there")
        with pytest.raises(SubmitError, match=r"^long is running: cancel it first"):
            target.submit(long.job)
        said = target.cancel("long")
    assert said.startswith("long: stopped, a checkpoint is written"), said
    assert nothing_is_left("long")
    assert target.status("long").state == "unknown"
    with pytest.raises(SubmitError, match=r"^long: no such run"):
        target.cancel("long")


def test_a_deadline_stops_it_as_a_person_would(the_run: Run) -> None:
    late = the_run.like("late", steps=100_000)
    TARGET().submit(replace(late.job, nodes=1, ranks_per_node=2, deadline_seconds=12))
    wait_until(lambda: TARGET().status("late").state != "running")
    assert TARGET().status("late").state == "stopped", list(TARGET().logs("late"))
    TARGET().cancel("late")


def test_bad_input_is_told_before_or_after(the_run: Run) -> None:
    """The command has the image's trainer check the run first; its script does not."""
    bad = the_run.like("bad", steps=STEPS)
    job = replace(bad.job, config_text=bad.job.config_text.replace("[data]", "[data]\nnum_identities = 1"), nodes=1)
    with pytest.raises(SubmitError, match=rf"^in a container of {IMAGE}: .*num_identities") as refused:
        TARGET().submit(job)
    assert refused.value.code == 2
    assert nothing_is_left("bad")
    assert not list(bad.output.parent.glob("bad*"))
    subprocess.run(["sh"], input=TARGET().render(job), text=True, check=True, timeout=60)
    wait_until(lambda: TARGET().status("bad").state != "running")
    status = TARGET().status("bad")
    assert (status.state, status.exit_code) == ("bad input", 2), list(TARGET().logs("bad"))
    TARGET().cancel("bad")


def test_an_image_without_a_library_that_the_run_needs(the_run: Run) -> None:
    text = the_run.job.config_text
    for changed, missing_one in (
        (text.replace('decoder = "cpu"', 'decoder = "dali"'), "nvidia.dali"),
        (text.replace("[log]", "[log]\ntensorboard = true"), "tensorboard"),
    ):
        assert changed != text
        with pytest.raises(SubmitError, match=rf"^image {IMAGE} has no {missing_one}, which "):
            TARGET().submit(replace(the_run.job, name="lacking", config_text=changed))
    assert nothing_is_left("lacking")


def test_what_the_engine_refuses_is_one_line_and_leaves_nothing(the_run: Run) -> None:
    job = replace(the_run.job, name="half")
    docker("create", "--name", "half-1", "--network", "none", BASE, "true")
    with pytest.raises(SubmitError, match=r"^container half-1 exists and is none of this run: choose another name"):
        TARGET().submit(job)
    assert nothing_is_left("half")
    docker("rm", "half-1")
    docker("network", "create", "half")
    with pytest.raises(SubmitError, match=r"^network half exists and is none of this run"):
        TARGET().submit(job)
    docker("network", "rm", "half")
    with pytest.raises(SubmitError, match=r"^the engine cannot give a gpu to a container"):
        TARGET().submit(replace(job, gpus=True))
    assert nothing_is_left("half")
    with pytest.raises(SubmitError, match=r"^image nobody/has:it is not on this engine"):
        TARGET().submit(replace(job, image="nobody/has:it"))
    with pytest.raises(SubmitError, match=rf"^image {BASE} cannot run pfc .*; build it from docker/Dockerfile$"):
        TARGET().submit(replace(job, image=BASE))
    gone = failing("run", "--rm", "--network", "none", "--mount", "type=bind,source=/no/folder,target=/data", IMAGE)
    assert str(complaint("run", gone)).startswith("mount /no/folder: there is no such file or folder on the engine's")


def test_ports_of_this_machine_that_are_taken(the_run: Run) -> None:
    target = TARGET(DockerOptions(publish_metrics=True))
    ports = replace(the_run.job, name="ports", nodes=1, ranks_per_node=2)
    docker("network", "create", "taker")
    docker(
        "run",
        "--detach",
        "--name",
        "taker",
        "--network",
        "taker",
        "--publish",
        "127.0.0.1:9500:1",
        IMAGE,
        "sleep",
        "60",
    )
    with pytest.raises(SubmitError, match=r"^127.0.0.1:9500 is in use: choose another metrics.port"):
        target.submit(ports)
    assert nothing_is_left("ports")
    docker("rm", "--force", "taker")
    docker("network", "rm", "taker")


def test_an_engine_that_does_not_run_or_may_not_be_used(the_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    as_nobody = ["setpriv", "--reuid", "65534", "--clear-groups", "docker", "ps"]
    refused = subprocess.run(as_nobody, capture_output=True, text=True, timeout=60, check=False)
    assert str(complaint("ps", refused.stderr)).startswith("no permission to use Docker's socket unix:///"), refused
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/engine.sock")
    with pytest.raises(SubmitError, match=r"^no Docker engine answers at unix:///no/engine.sock: start it") as raised:
        TARGET().status("faces")
    assert raised.value.code == 1
    monkeypatch.setenv("PATH", "/no/programs")
    with pytest.raises(SubmitError, match=r"^docker: no such program"):
        TARGET().status("faces")


PROMETHEUS = """
FROM {base}
COPY prometheus promtool /usr/bin/
RUN install -d -o nobody /prometheus
USER nobody
ENTRYPOINT ["/usr/bin/prometheus"]
"""


def test_compose_shows_a_run_to_prometheus(context: Path, the_run: Run, tmp_path: Path) -> None:
    """The services whose images can be had here: all but Grafana."""
    for program in ("prometheus", "promtool"):
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"needs {program} (package prometheus)")
        shutil.copy(found, tmp_path)
    (tmp_path / "Dockerfile").write_text(PROMETHEUS.format(base=BASE))
    build(tmp_path, "prometheus:test", {}, file="Dockerfile")
    runs, config, port = the_run.output.parent, tmp_path / "run.toml", 19090
    config.write_text(the_run.like("composed", steps=100_000).job.config_text.replace(METRICS, ""))
    settings = {
        "PFC_IMAGE": IMAGE,
        "PFC_CONFIG": str(config),
        "PFC_DATA": str(the_run.faces),
        "PFC_RUNS": str(runs),
        "PFC_RANKS": "2",
        "PFC_USER": f"{OWNER}:{OWNER}",
        "PROMETHEUS_IMAGE": "prometheus:test",
        "PROMETHEUS_PORT": str(port),
        "COMPOSE_PROJECT_NAME": "pfc-test",
    }

    def compose(*words: str) -> str:
        done = subprocess.run(
            [*compose_command(), "-f", str(context / "docker/compose.yaml"), *words],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    resolved = yaml.safe_load(compose("config"))["services"]
    assert resolved.keys() == {"trainer", "prometheus", "grafana"}
    with_gpus = yaml.safe_load(compose("-f", str(context / "docker/compose.gpu.yaml"), "config"))["services"]["trainer"]
    assert with_gpus["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert with_gpus["command"] == resolved["trainer"]["command"]
    try:
        compose("up", "--detach", "--no-build", "trainer", "prometheus")
        server = compose("ps", "--quiet", "prometheus").strip()

        def query(expression: str) -> list[str]:
            """Series, one a line; from inside, as this process is in another network namespace."""
            asked = ["docker", "exec", server, "promtool", "query", "instant", "http://localhost:9090", expression]
            return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()

        wait_until(lambda: len(query('pfc_step{job="composed"} > 0')) == 2 and len(query("up == 1")) == 2)
        assert len(query('up{listed_by="pfc"}')) == 2
        wait_until(lambda: query('{__name__=~"job:.+", job="composed"}'))  # by the recording rules
        compose("stop", "trainer")
        container = compose("ps", "--quiet", "--all", "trainer").strip()
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "75"
        assert not (runs / "targets.json").exists(), "a run that was stopped is no lost one"
    finally:
        compose("down", "--volumes")


def nothing_is_left(name: str) -> bool:
    containers = docker("ps", "--all", "--quiet", "--filter", f"label=pfc.name={name}")
    return not containers and not docker("network", "ls", "--quiet", "--filter", f"label=pfc.name={name}")


def failing(*words: str, cwd: Path | None = None) -> str:
    """What a docker command that must fail says."""
    done = subprocess.run(["docker", *words], cwd=cwd, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
