"""From a million to a hundred million identities on 8 to 64 GPUs: what ``pfc plan`` says, beside what peers publish."""

from trainer.config import config_from
from trainer.plan.devices import device_named
from trainer.plan.memory import GIB
from trainer.plan.planning import Machine, Plan, make_plan
from trainer.plan.problem import Problem
from trainer.plan.rates import rates_of

IDENTITIES = (1_000_000, 10_000_000, 30_000_000, 100_000_000)
RANKS = (8, 16, 64)
DEVICES = ("v100-32g", "h100")
BATCH = 128
PEERS = {
    (1_000_000, 8): "arcface_torch 3,449 images/s model parallel, 4,803 at rate 0.1",
    (30_000_000, 8): "arcface_torch (29M) 1,855 images/s at rate 0.1, 31.6 GiB; model parallel does not fit",
    (100_000_000, 8): "PLSC trains 92M at rate 0.1",
}
"""On 8 V100-32G: arcface_torch, docs/speed_benchmark.md; Paddle PLSC's own claim. All other cells are computed."""


def scale_table() -> str:
    """Markdown."""
    speeds = " | ".join(f"{name}: images/s" for name in DEVICES)
    lines = [
        f"| identities, GPUs | GiB a GPU, steady / worst | {speeds} | checkpoint, GiB | published, 8 V100-32G |",
        "| --- |" + " --- |" * (len(DEVICES) + 3),
    ]
    for identities in IDENTITIES:
        for ranks in RANKS:
            plans = [_plan(identities, ranks, name) for name in DEVICES]
            steady, worst = (plans[0].memory.device(worst=worst) / GIB for worst in (False, True))
            cells = " | ".join(map(_speed, plans))
            lines.append(
                f"| {identities // 1_000_000}M, {ranks} | {steady:.1f} / {worst:.1f} | {cells} | "
                f"{plans[0].checkpoint_bytes / GIB:,.0f} | {PEERS.get((identities, ranks), '')} |"
            )
    return "\n".join(lines)


def _plan(identities: int, ranks: int, device_name: str) -> Plan:
    config = config_from(
        {
            "run": {"output": "planned"},
            "data": {"records": "planned", "num_identities": identities, "batch_size": BATCH},
            "backbone": {"name": "iresnet50", "precision": "bfloat16"},
            "train": {"epochs": 1},
        },
        "pfc plan --table",
    )
    device = device_named(device_name)
    machine = Machine(device.name, device.memory, False, rates_of(device))
    return make_plan(Problem(config, identities, None, ranks, 8), machine)


def _speed(plan: Plan) -> str:
    if not plan.fits_steady:
        return "does not fit"
    return f"{plan.images_per_second:,.0f}" + ("" if plan.fits else " (worst phase does not fit)")
