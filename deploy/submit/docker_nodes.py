"""A run's containers as the engine tells of them, and what that says about the run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.launch.exit_codes import BAD_INPUT, DONE, STOPPED, merged
from deploy.submit.docker_engine import docker
from deploy.submit.target import Status

AGAIN = "submit it again, and all nodes start from its newest checkpoint"
_STATES = {DONE: "done", BAD_INPUT: "bad input", STOPPED: "stopped"}


@dataclass(frozen=True)
class Node:
    """One container. state, health: Docker's words ("": no health check). code: of its process, once it has ended."""

    name: str
    number: int
    nodes: int
    ranks: int
    state: str
    code: int
    out_of_memory: bool
    health: str
    stop_seconds: int

    @property
    def has_ended(self) -> bool:
        """Whether it will do nothing more by itself."""
        return self.state in ("exited", "dead")

    @property
    def described(self) -> str:
        """``node 1 was killed (out of memory)``."""
        if self.out_of_memory:
            return f"node {self.number} was killed (out of memory)"
        how = "was killed" if self.code == 128 + 9 else f"ended with {self.code}"
        return f"node {self.number} {how}"


def nodes_of(name: str) -> list[Node]:
    """The containers of that run, in the order of the nodes; none where there is no such run."""
    found = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label=pfc.name={name}").split()
    if not found:
        return []
    return sorted(map(_node, json.loads(docker("inspect", *found))), key=lambda node: node.number)


def status_of(nodes: Sequence[Node]) -> Status:
    """Of the whole run."""
    if not nodes:
        return Status("unknown", "the engine has no containers of that name")
    expected, running = nodes[0].nodes, [node for node in nodes if not node.has_ended]
    if running:
        return _running(nodes, expected)
    code = merged({node.number: _signal_or_code(node.code) for node in nodes}, asked=False)
    if code == DONE and len(nodes) < expected:
        return Status("unknown", f"{expected - len(nodes)} of {expected} containers are gone, the others ended with 0")
    told = ", ".join(node.described for node in nodes if node.code != DONE)
    advice = {
        DONE: f"all {expected} nodes ended with 0" if expected > 1 else "ended with 0",
        BAD_INPUT: f"{told}: see its logs, mend the input",
        STOPPED: f"a checkpoint is written: {AGAIN}",
    }
    return Status(_STATES.get(code, "failed"), advice.get(code, f"{told}: {AGAIN}"), code)


def _running(nodes: Sequence[Node], expected: int) -> Status:
    up = [node for node in nodes if node.state == "running"]
    details = [f"{len(up)} of {expected} nodes run"]
    details += [node.described for node in nodes if node.has_ended]
    details += [f"node {node.number} is {node.health}" for node in up if node.health in ("starting", "unhealthy")]
    return Status("running" if up else "waiting", ", ".join(details))


def _signal_or_code(code: int) -> int:
    """Docker says 128 + N for an end by signal N, ``merged`` reads -N."""
    return 128 - code if code in (128 + 2, 128 + 9, 128 + 15) else code


def _node(told: dict[str, Any]) -> Node:
    labels, state, config = told["Config"]["Labels"], told["State"], told["Config"]
    return Node(
        name=told["Name"].removeprefix("/"),
        number=int(labels["pfc.node"]),
        nodes=int(labels["pfc.nodes"]),
        ranks=int(labels["pfc.ranks-per-node"]),
        state=state["Status"],
        code=int(state["ExitCode"]),
        out_of_memory=bool(state.get("OOMKilled")),
        health=state.get("Health", {}).get("Status", ""),
        stop_seconds=int(config.get("StopTimeout") or 10),
    )
