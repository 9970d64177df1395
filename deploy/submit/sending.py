"""Sending a job to its target, and noting that it was sent."""

import argparse
from datetime import UTC, datetime

from deploy.submit.errors import LeftBehindError, SubmitError
from deploy.submit.job import Job
from deploy.submit.own_options import options_of, target_of
from deploy.submit.registry import Entry, Registry
from deploy.submit.target import LIVE, Distant, Target
from deploy.submit.targets import has_paths_of_its_own


def send(target: Target, name: str, job: Job, arguments: argparse.Namespace, registry: Registry) -> str:
    """Submit ``job`` to ``target``, which is called ``name``; the target's line.

    Raises SubmitError where the run's name, or its folder, belongs to a run that is still live.
    """
    with registry.locked():
        for entry in registry.entries():
            if entry.name == job.name or _share_folder(entry, name, job):
                _refuse_live(entry, job, registry)
        former = registry.find(job.name)
        entry = _entry(target, name, job, arguments)
        if former is not None and isinstance(target, Distant):
            _make_room(target, entry, former)
        try:
            registry.write(entry)  # before it is sent: killed half-way, it can be asked about, and cancelled
            return target.submit(job)
        except LeftBehindError:
            raise
        except BaseException:
            if former is None:
                registry.forget(job.name)
            else:
                registry.write(former)
            raise


def _entry(target: Target, name: str, job: Job, arguments: argparse.Namespace) -> Entry:
    options = options_of(type(target), arguments)
    return Entry(
        name=job.name,
        target=name,
        options=options | (target.place() if isinstance(target, Distant) else {}),
        submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        config=str(job.config),
        output=str(job.output),
        nodes=job.nodes,
        ranks_per_node=job.ranks_per_node,
    )


def _make_room(target: Distant, entry: Entry, former: Entry) -> None:
    """Where the former run of that name was sent to the same place, what is left of it is in the way."""
    place = target.place()
    if former.target == entry.target and place == {key: former.options.get(key) for key in place}:
        target.clear(entry.name)


def _share_folder(entry: Entry, name: str, job: Job) -> bool:
    """Whether both write into one folder of this machine; what is behind a path of containers, only they know."""
    inside = has_paths_of_its_own(name, job.image) or has_paths_of_its_own(entry.target, None)
    return entry.output == str(job.output) and not inside


def _refuse_live(entry: Entry, job: Job, registry: Registry) -> None:
    try:
        state = target_of(entry).status(entry.name).state
    except SubmitError as error:
        raise SubmitError(
            f"'{entry.name}' may still live, where it was submitted to ({entry.target}): {error}; or give this one "
            f"another --name and run.output; or remove {registry.path_of(entry.name)} to forget it",
            error.code,
        ) from None
    if state not in LIVE:
        return
    if entry.name == job.name:
        raise SubmitError(
            f"a run called '{entry.name}' is {state} ({entry.target}): pfc status {entry.name}; pfc cancel "
            f"{entry.name}, or give this one another --name"
        )
    raise SubmitError(
        f"run.output {job.output} belongs to '{entry.name}', which is {state} ({entry.target}): two runs would write "
        f"into one folder; pfc cancel {entry.name}, or --set run.output=..."
    )
