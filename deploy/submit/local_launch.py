"""How the launcher of one "node" of a local run is started: the same words for the supervisor and for people."""

from pathlib import Path

from deploy.submit.local_state import CONFIG, Plan

MARGIN_SECONDS = 30  # between the launcher's own SIGKILL of its workers and ours of the launcher


def launcher_settings(plan: Plan, node: int, port: str) -> dict[str, str]:
    """Variables to set for it."""
    return plan.settings | {
        "PET_NNODES": str(plan.nodes),
        "PET_NODE_RANK": str(node),
        "PET_NPROC_PER_NODE": str(plan.ranks_per_node),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": port,
        "PET_MAX_RESTARTS": "0",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(plan.grace_seconds - MARGIN_SECONDS),
    }


def launcher_command(plan: Plan, folder: Path) -> list[str]:
    """In the plan's folder; ``folder``: the run's in the registry."""
    return [plan.python, "-m", "deploy.launch.agent", "-m", "trainer", "train", str(folder / CONFIG)]
