"""Which folders of this machine a job's containers see, as whom they write there, and whether both can work."""

import os
from pathlib import Path, PurePosixPath

from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Volume
from deploy.submit.sent_config import paths_read

IMAGE_USER = 10001  # of docker/Dockerfile


def volumes_of(job: Job) -> tuple[Volume, ...]:
    """The job's volumes, and the run's folder at its own path where none of them holds it."""
    if _holder(job.volumes, job.output) is not None:
        return job.volumes
    return (*job.volumes, Volume(str(job.output), str(job.output)))


def output_folder(job: Job) -> Path:
    """``run.output``, which is a path in the containers, on this machine."""
    volume = _holder(volumes_of(job), job.output)
    assert volume is not None, "one is added above"
    return Path(volume.source) / job.output.relative_to(volume.target)


def config_file(job: Job) -> Path:
    """Where the configuration lies as it was submitted: beside the run's folder, which must be empty at first."""
    folder = output_folder(job)
    return folder.with_name(f"{folder.name}.submitted.toml")


def user_of(folder: Path) -> str:
    """``UID:GID`` of who writes into ``folder``: its owner, or whoever will make it; never root without being asked.

    Then what a run leaves there belongs to the person who owns the folder, not to a number that only the image knows.
    """
    if folder.exists() or os.getuid() == 0:
        # Root makes a folder for whoever owns the one that it will lie in.
        status = next(place for place in (folder, *folder.parents) if place.exists()).stat()
        owner, group = status.st_uid, status.st_gid
    else:
        owner, group = os.getuid(), os.getgid()
    return f"{owner}:{group}" if owner else f"{IMAGE_USER}:{IMAGE_USER}"


def check_folders(job: Job, user: str) -> None:
    """Raises SubmitError for folders that do not exist, cannot be mounted or written, or are not mounted and read."""
    for volume in job.volumes:
        if not Path(volume.source).is_absolute() or not Path(volume.target).is_absolute():
            raise SubmitError(
                f"volume {volume.source}:{volume.target}: give the absolute paths of a folder here and in the container"
            )
    targets = [volume.target for volume in job.volumes]
    for target in targets:
        if targets.count(target) > 1:
            raise SubmitError(f"volume {target}: two folders cannot be mounted at one place; leave one of them out")
    for volume in job.volumes:
        if not Path(volume.source).exists():
            raise SubmitError(
                f"volume {volume.source}: there is no such folder on this machine; make it, or mend the path"
            )
    holder = _holder(job.volumes, job.output)
    if holder is not None and holder.read_only:
        raise SubmitError(f"run.output {job.output}: volume {holder.target} is read-only; mount it writable")
    volumes = volumes_of(job)
    for key, path in paths_read(job.config_text):
        if _holder(volumes, path) is None:
            raise SubmitError(
                f"{key} {path}: in none of the folders that the containers see "
                f"({', '.join(volume.target for volume in volumes)}); add a volume for it, read-only"
            )
    folder = output_folder(job)
    if folder.exists() and not _may_write(folder, user):
        raise SubmitError(
            f"run.output {folder}: user {user} of the containers may not write there; "
            f"chown -R {user} {folder}, or give another --user"
        )


def _holder(volumes: tuple[Volume, ...], path: Path) -> Volume | None:
    """The volume at or above ``path``, the innermost one."""
    holders = [volume for volume in volumes if PurePosixPath(path).is_relative_to(volume.target)]
    return max(holders, key=lambda volume: len(PurePosixPath(volume.target).parts), default=None)


def _may_write(folder: Path, user: str) -> bool:
    """By the permission bits: this process may be another user."""
    uid, _, gid = user.partition(":")
    status = folder.stat()
    if uid == "0":
        return True
    if str(status.st_uid) == uid:
        return bool(status.st_mode & 0o200)
    return bool(status.st_mode & (0o020 if str(status.st_gid) == gid else 0o002))
