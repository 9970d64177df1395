"""Which targets there are. Each is a module here with a class ``TARGET``, imported when it is asked for."""

import importlib
from importlib.util import find_spec
from typing import cast

from deploy.submit.errors import SubmitError
from deploy.submit.target import Target

SUMMARIES = {
    "local": "this machine, in the background",
    "docker": "containers of a Docker engine",
    "kubernetes": "a Kubernetes cluster",
    "slurm": "a Slurm cluster",
}
CONTAINERS_ALWAYS = ("docker", "kubernetes")


def target_names() -> list[str]:
    """Those that are installed."""
    return [name for name in SUMMARIES if find_spec(f"deploy.submit.{name}") is not None]


def load_target(name: str) -> type[Target]:
    """Its class, imported now. Raises SubmitError where it is not installed: another may have sent a run there."""
    if name not in target_names():
        raise SubmitError(f"there is no target '{name}' in this installation of pfc: {', '.join(target_names())}", 1)
    return cast("type[Target]", importlib.import_module(f"deploy.submit.{name}").TARGET)


def has_paths_of_its_own(name: str, image: str | None) -> bool:
    """Whether a run there sees other folders than this machine: those of a container."""
    return name in CONTAINERS_ALWAYS or image is not None
