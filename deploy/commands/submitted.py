"""The run that ``pfc status``, ``logs`` and ``cancel`` are asked about: as it was submitted, or as they are told."""

import argparse
from dataclasses import replace
from pathlib import Path

from deploy.submit.environment import state_folder
from deploy.submit.errors import SubmitError
from deploy.submit.names import check_name
from deploy.submit.registry import Entry, Registry

KUBERNETES = "kubernetes"
PLACES = ("namespace", "context", "kubeconfig")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where on Kubernetes to look instead of where the run was sent."""
    group = parser.add_argument_group(
        "on Kubernetes", "where the run is, if not where it was submitted to from here (or it was not, but by kubectl)"
    )
    group.add_argument("--namespace", metavar="NS")
    group.add_argument("--context", metavar="NAME")
    group.add_argument("--kubeconfig", type=Path, metavar="FILE")


def asked_for(arguments: argparse.Namespace, registry: Registry) -> Entry:
    """Raises SubmitError where there is no such run, and for a place of one that is not on Kubernetes."""
    given = {place: str(value) for place in PLACES if (value := getattr(arguments, place)) is not None}
    if not given:
        return registry.get(arguments.name)
    entry = registry.find(check_name(arguments.name, "NAME"))
    if entry is None:
        return Entry(arguments.name, KUBERNETES, given, submitted="", config="", output="", nodes=0, ranks_per_node=0)
    if entry.target != KUBERNETES:
        raise SubmitError(f"--{next(iter(given))}: '{entry.name}' was submitted to {entry.target}; leave it out")
    # Another kubeconfig has other contexts, and another context its own namespace.
    kept = dict.fromkeys(PLACES[: max(map(PLACES.index, given))])
    return replace(entry, options=entry.options | kept | given)


def is_registered(entry: Entry) -> bool:
    """Whether it was submitted from here."""
    return bool(entry.submitted)


def registry_here() -> Registry:
    """Of this user."""
    return Registry(state_folder())
