"""Starts this node's ranks: torchrun, whose exit codes, restarts and signals are those of this project.

python -m deploy.launch.agent [torchrun's arguments] -m trainer train RUN.toml

Arguments can come from the environment, as schedulers set it: PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK,
PET_MASTER_ADDR, PET_MASTER_PORT; PFC_MEETING_SECONDS: how long nodes wait for each other (120). Exit codes: see
:func:`deploy.launch.exit_codes.merged`. One node alone starts its workers again, ``--max-restarts`` times at most,
unless they were stopped or their input is bad; of several nodes, each ends with its workers, and the scheduler starts
all of them again.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from deploy.launch.exit_codes import BAD_INPUT, DONE, FAILURE, merged
from deploy.launch.relay import Relay, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this node's part of a job; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with Relay() as relay:
        # What the ranks have to say when a rank is lost, they say in one line; the C++ libraries would add pages. They
        # read this when they are loaded, here and in the workers.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        # Importing torch takes seconds, in which a signal must be heard already.
        from deploy.launch.elastic import attempt, read_job
        from deploy.launch.last_words import tell_other_nodes

        try:
            job = read_job(arguments)
        except ValueError as error:
            say(f"error: {error}")
            return BAD_INPUT
        relay.expect(job.workers, grace_seconds=job.grace_seconds)
        for number in range(job.restarts + 1):
            codes, reason = attempt(job)
            code = FAILURE if codes is None else merged(codes, asked=relay.asked)
            if code == DONE:
                return code
            say(f"{reason}: exit code {code}")
            if code != FAILURE or relay.asked:
                break
            if number < job.restarts:
                say(f"restart {number + 1} of {job.restarts}")
        # The first node's store has ended with its workers: the others notice that.
        if job.node_rank > 0 and code in (FAILURE, BAD_INPUT):
            tell_other_nodes(f"node {job.node_rank} failed: {reason}", code, master=job.master, absent=job.workers)
        return code


def run() -> NoReturn:
    """``main`` as a process: whatever thread of torch's hangs in a lost link cannot keep it, or spoil its exit code."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
