"""A plan as text and as plain values for JSON."""

from typing import Any

from trainer.plan.imagined_ranks import Share
from trainer.plan.memory import GIB, Memory
from trainer.plan.planning import Plan

MIB = float(1 << 20)


def format_plan(plan: Plan) -> str:
    """Tables that a person reads."""
    problem, config = plan.problem, plan.problem.config
    images = "" if problem.images is None else f", {problem.images:,} images"
    head = config.head.loss if config.head.sample_rate == 1.0 else f"{config.head.loss}, rate {config.head.sample_rate}"
    if config.head.center_dtype != "float32":
        head += f", centers in {config.head.center_dtype}"
    if config.head.center_memory == "host":
        head += ", centers in host memory"
    lines = [
        f"{problem.identities:,} identities{images}; {config.backbone.name} at {config.data.image_size}x"
        f"{config.data.image_size}, {config.backbone.precision}, D={problem.dim}; batch {problem.batch} a rank; {head}",
        f"{problem.ranks} {'rank' if problem.ranks == 1 else 'ranks'} of {plan.machine.name}"
        f" ({plan.machine.memory / GIB:.0f} GiB each), {problem.rows:,} classes a rank; computed, not measured",
        "",
        f"{'memory of a rank':24}{'steady MiB':>12}{'worst MiB':>12}",
    ]
    for part in plan.memory.parts:
        where = "" if part.on_device else "  (host)"
        lines.append(f"  {part.name:22}{part.steady / MIB:12,.0f}{part.worst / MIB:12,.0f}{where}")
    memory = plan.memory
    steady, worst = memory.device(worst=False) / MIB, memory.device(worst=True) / MIB
    lines.append(f"  {'all on the device':22}{steady:12,.0f}{worst:12,.0f}")
    lines += ["", f"{'time of a step':24}{'ms':>12}{'beside others':>15}"]
    for name, seconds in plan.timing.parts.items():
        beside = plan.timing.hidden.get(name, 0.0)
        label = f"head, {plan.timing.mode}" if name == "head" else name
        lines.append(f"  {label:22}{1000 * seconds:12,.2f}" + (f"{1000 * beside:15,.2f}" if beside else ""))
    lines.append(f"  {'step':22}{1000 * plan.timing.step:12,.2f}")
    if plan.dense_step is not None:
        lines.append(f"  {'step, every pair active':22}{1000 * plan.dense_step:11,.2f}")
    traffic = plan.traffic
    lines += [
        "",
        f"images/s            {plan.images_per_second:,.0f}",
        *([] if plan.epoch_hours is None else [f"hours an epoch      {plan.epoch_hours:,.2f}"]),
        f"checkpoint          {plan.checkpoint_bytes / GIB:,.2f} GiB, {plan.checkpoint_seconds:,.1f} s to write",
        f"network, a rank     all-gather {traffic.all_gather:,.0f} + reduce-scatter {traffic.reduce_scatter:,.0f} + "
        f"all-reduce {traffic.all_reduce:,.0f} bytes a step handed over; {traffic.wire / MIB:,.1f} MiB received",
        f"largest that fits   {plan.largest:,} identities",
        *(f"limit               {line}" for line in plan.limits),
        *(f"advice              {line}" for line in plan.advice),
    ]
    return "\n".join(lines)


def format_shares(shares: list[Share]) -> str:
    """One line: how far the shares of all ranks differ."""
    sizes = [share.stop - share.start for share in shares]
    return (
        f"shares              {len(shares)} ranks made on the meta device: {min(sizes):,} to {max(sizes):,} classes, "
        f"{max(share.nbytes for share in shares) / MIB:,.0f} MiB before the first step"
    )


def plan_facts(plan: Plan, shares: list[Share] | None = None) -> dict[str, Any]:
    """Bytes, seconds, counts."""
    problem = plan.problem
    facts = {
        "identities": problem.identities,
        "images": problem.images,
        "ranks": problem.ranks,
        "ranks_per_node": problem.ranks_per_node,
        "device": plan.machine.name,
        "device_memory": plan.machine.memory,
        "backbone": problem.config.backbone.name,
        "precision": problem.config.backbone.precision,
        "embedding_dim": problem.dim,
        "batch_size": problem.batch,
        "global_batch": problem.batch * problem.ranks,
        "rows_per_rank": problem.rows,
        "head": plan.timing.mode,
        "memory": {part.name: {"steady": part.steady, "worst": part.worst} for part in plan.memory.parts},
        "memory_device": _both(plan.memory, on_device=True),
        "memory_host": _both(plan.memory, on_device=False),
        "step_parts": plan.timing.parts,
        "beside_others": plan.timing.hidden,
        "step_seconds": plan.timing.step,
        "dense_step_seconds": plan.dense_step,
        "images_per_second": plan.images_per_second,
        "epoch_hours": plan.epoch_hours,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "checkpoint_seconds": plan.checkpoint_seconds,
        "network_bytes": vars(plan.traffic),
        "largest_identities": plan.largest,
        "fits": plan.fits,
        "limits": list(plan.limits),
        "advice": list(plan.advice),
    }
    return facts if shares is None else facts | {"shares": [vars(share) for share in shares]}


def _both(memory: Memory, *, on_device: bool) -> dict[str, float]:
    of = memory.device if on_device else memory.host
    return {"steady": of(worst=False), "worst": of(worst=True)}
