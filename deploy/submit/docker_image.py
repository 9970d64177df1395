"""Whether an image can run a job: found out in a container that sees what the run's own will see."""

import tomllib
from collections.abc import Iterator
from typing import Any

from deploy.launch.exit_codes import BAD_INPUT
from deploy.submit.docker_commands import CONFIG, DockerOptions, look_inside, words
from deploy.submit.docker_engine import docker
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job

_TRAINER = "pfc: error: "
_FIND = """
import sys
from importlib.util import find_spec
import trainer, deploy.launch

def is_there(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False

print(*[name for name in sys.argv[1:] if not is_there(name)])
"""


def check_image(job: Job) -> None:
    """Raises SubmitError for an image that is not there, is none of pfc, or lacks a library that the run needs."""
    image = job.image
    assert image is not None, "it is checked"
    docker("image", "inspect", "--format", "{{.Id}}", image)
    needed = dict(_libraries(tomllib.loads(job.config_text)))
    probe = ("run", "--rm", "--network", "none", "--pull", "never", "--entrypoint", "python", image)
    try:
        missing = docker(*probe, "-c", _FIND, *needed).split()
    except SubmitError as error:
        raise SubmitError(
            f"image {image} cannot run pfc ({error}); build it from docker/Dockerfile", error.code
        ) from None
    for name, why in needed.items():
        if name in missing:
            raise SubmitError(
                f"image {image} has no {name}, which {why}; or build it with that extra (docker/README.md)"
            )


def check_run(job: Job, options: DockerOptions) -> None:
    """Have the image's own trainer check the run, as the containers' user and with their folders. Raises SubmitError.

    Here ``pfc submit`` could only read the configuration: data lie at the containers' paths.
    """
    inside = look_inside(
        job, options, "-m", "trainer", "check", CONFIG, "--world-size", str(job.nodes * job.ranks_per_node)
    )
    try:
        docker(*words(inside)[1:])
    except SubmitError as error:
        said = str(error).partition(_TRAINER)[2]
        raise (SubmitError(f"in a container of {job.image}: {said}", BAD_INPUT) if said else error) from None


def _libraries(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Modules that a run imports when it starts, and what asks for them."""
    log = config.get("log", {})
    if config.get("data", {}).get("decoder", "dali") == "dali":
        yield "nvidia.dali", "data.decoder = 'dali' needs: set it to 'cpu'"
    if config.get("train", {}).get("engine") == "deepspeed":
        yield "deepspeed", "train.engine = 'deepspeed' needs: set it to 'ddp'"
    if log.get("tensorboard"):
        yield "tensorboard", "log.tensorboard needs: leave it out"
    if log.get("wandb"):
        yield "wandb", "log.wandb needs: leave it out"
