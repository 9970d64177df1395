"""Who this process is among all: rank, world size, device. The one file that reads the environment."""

import faulthandler
import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

from trainer.errors import ConfigError

SETTLE_SECONDS = 0.1
PARTING_SECONDS = 20.0
LAUNCHER_KEYS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """One process's place in the run; passed as a value to whatever needs it."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    local_world_size: int = 1  # ranks on this machine

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone prints progress and writes shared files."""
        return self.rank == 0


def for_a_launcher(code: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a launcher that this process starts: nobody's rank, and modules from the folder ``code``."""
    kept = {key: value for key, value in environment.items() if key not in LAUNCHER_KEYS}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (code, environment.get("PYTHONPATH"))))}


def for_a_rank(rank: int, ranks: int, port: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of one of ``ranks`` ranks that this process starts, all on this machine; meeting at ``port``."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    return {**environment, **{key: str(value) for key, value in place.items()}, "MASTER_ADDR": "127.0.0.1"}


def threads_are_told(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher or a user has said how many threads a process has."""
    return "OMP_NUM_THREADS" in environment


def launched_place(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int]:
    """``(rank, world_size, local_rank)`` as torchrun or any other launcher says; ``(0, 1, 0)`` without one.

    Raises ConfigError when only some of the launcher's variables are set or one is not a sensible number.
    """
    if "WORLD_SIZE" not in environment and "RANK" not in environment:
        return 0, 1, 0
    missing = [key for key in LAUNCHER_KEYS if key not in environment]
    if missing:
        raise ConfigError(
            f"the launcher set only a part of its environment: {', '.join(missing)} missing; use torchrun"
        )
    try:
        rank, world_size, local_rank = (int(environment[key]) for key in LAUNCHER_KEYS[:3])
    except ValueError:
        raise ConfigError("RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers; use torchrun") from None
    if not 0 <= rank < world_size or local_rank < 0:
        raise ConfigError(
            f"RANK {rank} of WORLD_SIZE {world_size} (LOCAL_RANK {local_rank}) is impossible; use torchrun"
        )
    return rank, world_size, local_rank


def meeting_store(
    *, timeout_seconds: float, may_host: bool, environment: Mapping[str, str] = os.environ
) -> Store | None:
    """A new connection to the table that all ranks can read and write, before the process group forms and beside it.

    torchrun keeps it in the launcher of the first node; under other launchers rank 0 does, by its call with
    ``may_host``. None in a world of one. Raises ConfigError for an address that cannot be one, torch's DistError where
    nobody answers in time.
    """
    rank, world_size, _ = launched_place(environment)
    if world_size == 1:
        return None
    host, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"MASTER_PORT {port!r} is no port number; use torchrun")
    store = TCPStore(
        host,
        int(port),
        is_master=may_host and rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        timeout=timedelta(seconds=timeout_seconds),
        wait_for_workers=False,
        multi_tenant=True,
    )
    # torchrun's own restarts keep the table: what an earlier attempt wrote must not be read again.
    return PrefixStore(f"attempt_{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def rank_prefix(environment: Mapping[str, str] = os.environ) -> str:
    """``"rank 3: "`` for messages of one of several ranks, nothing for a world of one."""
    several = environment.get("WORLD_SIZE", "1") != "1"
    return f"rank {environment.get('RANK', '?')}: " if several else ""


def choose_device(name: str, local_rank: int, *, setting: str = "run.device") -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:N" -> device; "auto" is this rank's GPU where there is one, else the CPU.

    setting: where the name comes from, for messages. Raises ConfigError for a GPU that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = gpu_number(name, setting=setting)
    if name == "cpu" or (name == "auto" and gpus == 0):
        return torch.device("cpu")
    index = local_rank if number is None else number
    if index >= gpus:
        raise ConfigError(
            f"{setting} '{name}' needs GPU {index} for local rank {local_rank}, this machine has {gpus}: "
            f"start fewer processes per node or set {setting} to 'cpu'"
        )
    return torch.device("cuda", index)


def gpu_number(name: str, *, setting: str = "run.device") -> int | None:
    """N of "cuda:N"; None for "auto", "cpu" and "cuda". Raises ConfigError for anything else; asks no driver."""
    if name in ("auto", "cpu", "cuda"):
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type != "cuda":
        raise ConfigError(f"{setting} '{name}' is unknown: use auto, cpu, cuda or cuda:N")
    return device.index


def prepare_deepspeed(world: World, environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell DeepSpeed, which asks the environment, for which device this process works; before it is imported."""
    environment["DS_ACCELERATOR"] = world.device.type
    index = world.device.index if world.device.type == "cuda" else world.local_rank
    environment["LOCAL_RANK"] = str(index)


def launched_world(
    device_name: str, *, expected_size: int | None, environment: Mapping[str, str], device_setting: str = "run.device"
) -> World:
    """What the launcher says about this process. Raises ConfigError where it started another number than expected."""
    rank, world_size, local_rank = launched_place(environment)
    if expected_size is not None and expected_size != world_size:
        raise ConfigError(
            f"run.world_size is {expected_size}, the launcher started {world_size}: "
            f"use torchrun --nproc-per-node {expected_size}, or change run.world_size"
        )
    # Not every launcher says it; then all ranks are taken to be here.
    here = environment.get("LOCAL_WORLD_SIZE", "")
    local_world_size = int(here) if here.isdecimal() and int(here) > local_rank else world_size
    device = choose_device(device_name, local_rank, setting=device_setting)
    return World(rank, world_size, local_rank, device, local_world_size)


@contextmanager
def joined_world(
    device_name: str,
    *,
    expected_size: int | None,
    timeout_seconds: float,
    join_seconds: float = 50.0,
    group_alone: bool = False,
    device_setting: str = "run.device",
    environment: Mapping[str, str] = os.environ,
) -> Iterator[World]:
    """Join the process group (gloo on CPU, NCCL on GPU) and leave it at the end.

    timeout_seconds: of every collective. join_seconds: until the ranks' meeting place answers. group_alone: a world of
    one needs no group; this gives it one, which DeepSpeed wants. device_setting: where ``device_name`` comes from.
    Raises ConfigError, before joining, when the launcher started another number of ranks than expected.
    """
    world = launched_world(
        device_name, expected_size=expected_size, environment=environment, device_setting=device_setting
    )
    rank, world_size, device = world.rank, world.world_size, world.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1 and not group_alone:
        yield world
        return
    # Its defaults hold the group that exists when it is first imported, as every torch optimizer does lazily. The
    # group's threads would then outlive destroy_process_group and now and then abort the interpreter's exit.
    importlib.import_module("torch.distributed.nn.functional")
    # gloo beside NCCL: flags and small CPU tensors then cross ranks without a device synchronisation.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = meeting_store(timeout_seconds=join_seconds, may_host=True, environment=environment) or HashStore()
    store.set_timeout(timedelta(seconds=timeout_seconds))
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_seconds),
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield world
        last = torch.zeros(1)
        for _ in range(4):
            dist.all_reduce(last)
    finally:
        # The last reference to a tensor that Python has seen takes Python's lock to drop, and destroy_process_group
        # waits for gloo's threads while it holds that lock: a rank that left right after a collective could wait for
        # ever. ``last`` outlives its collectives and takes the place of other tensors in the threads' hands; asleep,
        # this thread leaves them the lock.
        time.sleep(SETTLE_SECONDS)
        # Should it wait for ever all the same, holding the lock, no thread of Python's could end the process.
        faulthandler.dump_traceback_later(PARTING_SECONDS, exit=True)
        # DeepSpeed holds groups, whose threads live as long: its own function lets them go, too.
        deepspeed = sys.modules.get("deepspeed.comm")
        if deepspeed is not None and deepspeed.is_initialized():
            deepspeed.destroy_process_group()
        else:
            dist.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()
