"""torchrun as the launcher uses it: its arguments checked and completed, one attempt at a time, and what came of it."""

import copy
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import determine_local_world_size, get_args_parser, parse_min_max_nnodes, run

from deploy.launch.exit_codes import described
from deploy.launch.meeting import VARIABLE, MeetingError, wait_for_first_node, who_is_missing, with_limit
from deploy.launch.network import interface_towards
from deploy.launch.relay import say

DEFAULT_PORT = 29500
CHECKPOINT_SECONDS = 600  # between a signal and SIGKILL, unless --shutdown-timeout says otherwise


class UsageError(ValueError):
    """Arguments that do not fit together; the message names the way out."""


@dataclass(frozen=True)
class Job:
    """This node's part of a job. restarts: of its workers, by this launcher. meeting_seconds: that nodes wait for each
    other. arguments: torchrun's, complete.
    """

    nodes: int
    node_rank: int
    workers: int
    restarts: int
    grace_seconds: float
    master: tuple[str, int]
    meeting_seconds: int
    arguments: Namespace


def read_job(arguments: Sequence[str]) -> Job:
    """From the command line and PET_* variables; completes this process's environment, which the workers inherit.

    Raises ValueError, one line, for what cannot work; leaves by SystemExit, as argparse does, for unknown arguments.
    """
    parsed = get_args_parser().parse_args(arguments)
    nodes, workers = _check(parsed, arguments)
    parsed.rdzv_conf, meeting_seconds = with_limit(parsed.rdzv_conf, os.environ.get(VARIABLE))
    _prepare(parsed, nodes, workers)
    restarts, parsed.max_restarts = parsed.max_restarts, 0
    return Job(
        nodes,
        parsed.node_rank,
        workers,
        restarts,
        parsed.shutdown_timeout,
        (parsed.master_addr, parsed.master_port),
        meeting_seconds,
        parsed,
    )


def attempt(job: Job) -> tuple[dict[int, int] | None, str]:
    """Run the workers once.

    Exit codes of the ranks that failed, None where torch failed before or beside them; and what happened, in words.
    """
    try:
        if job.nodes > 1 and job.node_rank > 0:
            wait_for_first_node(*job.master, job.meeting_seconds)
        run(copy.copy(job.arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        codes = {int(rank): int(failure.exitcode) for rank, failure in error.failures.items()}
        return codes, described(codes)
    except SignalException as error:
        return None, f"ended by {error.sigval.name}"
    except MeetingError as error:
        return None, str(error)
    except Exception as error:
        text = f"the launcher failed: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        return None, who_is_missing(text, job.meeting_seconds) or text
    return {}, ""


def _check(parsed: Namespace, arguments: Sequence[str]) -> tuple[int, int]:
    """Number of nodes, and of workers on each. Raises ValueError, one line, for what cannot work."""
    try:
        fewest, nodes = parse_min_max_nnodes(parsed.nnodes)
    except ValueError:
        raise UsageError(f"--nnodes {parsed.nnodes}: give a number") from None
    workers = determine_local_world_size(parsed.nproc_per_node)
    if fewest != nodes or nodes < 1:
        raise UsageError(f"--nnodes {parsed.nnodes}: give one number; a run needs all its nodes")
    if parsed.max_restarts < 0:
        raise UsageError(f"--max-restarts {parsed.max_restarts}: give 0 or more")
    if nodes > 1:
        if parsed.max_restarts:
            raise UsageError("--max-restarts must be 0 on several nodes: let the scheduler start all of them again")
        if parsed.standalone or parsed.rdzv_backend != "static" or parsed.rdzv_endpoint:
            raise UsageError(
                "several nodes meet at --master-addr and --master-port: leave out --standalone and --rdzv-*"
            )
        named = any(word.split("=")[0] in ("--master-addr", "--master_addr") for word in arguments)
        if not named and "PET_MASTER_ADDR" not in os.environ:
            raise UsageError("several nodes need the address of the first: --master-addr, or PET_MASTER_ADDR")
        if not 0 <= parsed.node_rank < nodes:
            raise UsageError(f"--node-rank {parsed.node_rank} is not one of {nodes} nodes, counted from 0")
    return nodes, workers


def _prepare(parsed: Namespace, nodes: int, workers: int) -> None:
    """Settings that torchrun leaves to its user."""
    if parsed.master_port is None:
        parsed.master_port = DEFAULT_PORT
    if nodes == 1:
        # A port of the kernel's choice for every attempt, and no dependence on what this machine's name points to.
        parsed.standalone = True
        parsed.local_addr = parsed.local_addr or "127.0.0.1"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    else:
        interface = interface_towards(parsed.master_addr, parsed.master_port)
        if interface is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        else:  # perhaps its name is known in a moment
            say(f"--master-addr {parsed.master_addr}: this machine finds no way there yet, and waits for it")
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does, without its banner
    if parsed.shutdown_timeout is None:
        parsed.shutdown_timeout = int(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", CHECKPOINT_SECONDS))
    parsed.signals_to_handle = "SIGQUIT"  # the others are the relay's
    if parsed.log_dir is None and parsed.redirects == parsed.tee == "0":
        parsed.log_dir = os.devnull  # else a new folder in /tmp for every attempt
    if not (parsed.no_python or parsed.run_path):
        module = ["-m"] if parsed.module else []
        parsed.training_script_args = [
            str(os.getpid()),
            *module,
            parsed.training_script,
            *parsed.training_script_args,
        ]
        parsed.training_script, parsed.module = "deploy.launch.worker", True
