"""What DeepSpeed's ZeRO takes of memory beside weights, gradients and optimizer state, from its own settings.

Letters: P weights of the network, L of its largest parameter, b numbers of a bucket, W ranks; float32.
"""

from trainer.deepspeed_config import bucket_size
from trainer.plan.backbone_cost import BackboneCost, backbone_cost
from trainer.plan.problem import Problem

FLOAT = 4


def deepspeed_buffers(problem: Problem, *, on_cpu: bool) -> float:
    """Bytes at the worst moment of a step; 0 without ZeRO.

    Stages 1 and 2: while gradients are exchanged, a bucket 4 b and the flat copy of what is in it, at most 4 P, or of
    a parameter that does not fit into it, 4 L; or, if that is more, in the optimizer's step this rank's gradients once
    more, flat, 4 P / W, and on the CPU, where gloo gathers into memory of its own, all weights 4 P. Stage 2 also keeps
    the gradients that wait for their bucket to be full, 4 min(b, P).
    Stage 3: a bucket and its flat copy, the flat gradients 4 P / W, and weights gathered from other ranks, of which a
    step keeps at most ``stage3_max_live_parameters``: of a network of less than that, all, 4 P (1 - 1 / W).
    """
    stage = problem.zero_stage
    if not stage:
        return 0.0
    cost = backbone_cost(problem.config.backbone, problem.config.data.image_size)
    weights, bucket = float(FLOAT * cost.parameters), float(FLOAT * _bucket(problem, cost))
    filled = min(bucket, weights)
    exchanged = bucket + max(filled, float(FLOAT * cost.largest))
    part = weights / problem.ranks
    if stage == 3:
        settings = _settings(problem)
        most = settings.get("stage3_max_live_parameters", settings.get("max_live_parameters", MOST_LIVE))
        return exchanged + part + min(weights - part, FLOAT * float(most))
    stepping = part + (weights if on_cpu else 0.0)
    return max(exchanged, stepping) + (filled if stage == 2 else 0.0)


MOST_LIVE = 1_000_000_000  # DeepSpeed's own default


def _bucket(problem: Problem, cost: BackboneCost) -> int:
    given = _settings(problem).get("reduce_bucket_size", bucket_size(cost.parameters))
    return int(given)


def _settings(problem: Problem) -> dict[str, float]:
    settings: dict[str, float] = (problem.config.deepspeed or {}).get("zero_optimization", {})
    return settings
