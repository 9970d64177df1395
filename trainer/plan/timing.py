"""Time of a step by part, seconds; and what travels.

Shape letters: R classes of a rank, B images of a rank, N = B * W samples, D embedding size, W ranks, P weights.
"""

from dataclasses import dataclass

from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.problem import Problem
from trainer.plan.rates import Rates, family

FLOAT = 4
ID_BYTES = 8
BUCKET = 25 << 20  # bytes of gradient that DDP exchanges at a time
FORWARD, BACKWARD = ("forward", "DeepSpeed forward"), ("backward", "gradient all-reduce", "DeepSpeed backward")
"""Parts that happen in the loop's phases of these names."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of a rank in a step. all_gather, reduce_scatter, all_reduce: handed to collectives. wire: received."""

    all_gather: float
    reduce_scatter: float
    all_reduce: float
    wire: float


@dataclass(frozen=True)
class Timing:
    """parts: seconds by name; those of ``hidden`` happen beside others and count only as far as they are longer."""

    parts: dict[str, float]
    hidden: dict[str, float]
    mode: str

    @property
    def step(self) -> float:
        """The whole step."""
        return sum(self.parts.values())


def traffic_of(problem: Problem) -> Traffic:
    """All-gather B(4D + 8), reduce-scatter 4BD, whatever the number of classes; all-reduce 4P of the backbone."""
    batch, dim, ranks = problem.batch, problem.dim, problem.ranks
    if ranks == 1:
        return Traffic(0.0, 0.0, 0.0, 0.0)
    gather, scatter = batch * (4.0 * dim + ID_BYTES), 4.0 * batch * dim
    cost = backbone_cost(problem.config.backbone, problem.config.data.image_size)
    reduce = float(FLOAT * cost.parameters)
    stage = problem.zero_stage
    rounds = 3.0 if stage == 3 else 2.0  # gather weights twice, scatter gradients; or scatter and gather
    wire = (ranks - 1) * (gather + scatter) + rounds * (ranks - 1) / ranks * reduce
    return Traffic(gather, scatter, reduce, wire)


def timing_of(problem: Problem, rates: Rates, *, mode: str | None = None) -> Timing:
    """mode: "screened" (the default) or "dense", of SFace over all classes."""
    mode = mode or ("screened" if problem.head_kind == "full" else problem.head_kind)
    forward, backward = _backbone(problem, rates)
    traffic = traffic_of(problem)
    link = rates.link if problem.ranks <= problem.ranks_per_node else min(rates.link, rates.network)
    several, pieces = problem.ranks > 1, problem.config.train.micro_batches
    cost = backbone_cost(problem.config.backbone, problem.config.data.image_size)
    weights = FLOAT * cost.parameters
    decode = problem.batch / (rates.decode * problem.config.data.threads)
    gather = (problem.ranks - 1) * traffic.all_gather / link + 2 * pieces * rates.latency * several
    scatter = (problem.ranks - 1) * traffic.reduce_scatter / link + 3 * pieces * rates.latency * several
    gathers, scatters = traffic.all_gather + traffic.reduce_scatter, problem.ranks - 1
    reduce = (traffic.wire - scatters * gathers) / link + weights / BUCKET * rates.latency * several
    parts = {
        "decode": decode,
        "forward": forward,
        "all-gather": gather,
        "head": head_seconds(problem, rates, mode),
        "reduce-scatter": scatter,
        "backward": backward,
        "gradient all-reduce": reduce,
        "optimizer": rates.update * update_bytes(problem),
        "between steps": rates.between_seconds,
    }
    parts |= _deepspeed(problem, rates, weights)
    hidden: dict[str, float] = {}
    if rates.overlap:
        # The last bucket is exchanged when the backward pass is over.
        exposed = max(reduce - backward, reduce * min(1.0, BUCKET / weights))
        hidden["gradient all-reduce"], parts["gradient all-reduce"] = reduce - exposed, exposed
        compute = sum(parts.values()) - decode
        hidden["decode"], parts["decode"] = min(decode, compute), max(0.0, decode - compute)
    return Timing(parts, hidden, mode)


def head_seconds(problem: Problem, rates: Rates, mode: str) -> float:
    """Forward, backward and update of the centers."""
    rows, samples, pieces = float(problem.rows), float(problem.global_micro_batch), problem.config.train.micro_batches
    if mode == "screened":
        pairs = rows * samples
        one = rates.head_seconds + pairs * (2.0 * problem.dim / rates.screen + rates.pair_seconds)
        one += rows * rates.row_seconds * problem.dim + samples * rates.sample_seconds
        return pieces * one
    products = rates.dense if mode == "dense" else rates.softmax
    taken = rows * problem.config.head.sample_rate
    return pieces * (rates.head_seconds + products * bare_product_seconds(taken, samples, problem.dim, rates))


def bare_product_seconds(rows: float, samples: float, dim: int, rates: Rates) -> float:
    """The yardstick of ``pfc bench head``."""
    return 2.0 * rows * samples * dim / rates.product


def _backbone(problem: Problem, rates: Rates) -> tuple[float, float]:
    config = problem.config
    cost = backbone_cost(config.backbone, config.data.image_size)
    flops = rates.flops if config.backbone.precision == "float32" else rates.flops16
    forward, backward = cost.seconds(flops, rates.grouped, rates.bandwidth)
    kind = family(config.backbone.name)
    low = config.backbone.precision != "float32"
    factors = (rates.forward16, rates.backward16) if low else (rates.forward, rates.backward)
    return problem.batch * forward * factors[0][kind], problem.batch * backward * factors[1][kind]


def update_bytes(problem: Problem) -> float:
    """Of the weights that a rank's optimizer moves."""
    cost = backbone_cost(problem.config.backbone, problem.config.data.image_size)
    return float(FLOAT * cost.parameters) / (problem.ranks if problem.zero_stage else 1)


def _deepspeed(problem: Problem, rates: Rates, weights: float) -> dict[str, float]:
    """What ZeRO does beyond the exchange: copies into buckets and out of them, hooks of every module."""
    if not problem.zero_stage:
        return {}
    stage = str(problem.zero_stage)
    by_phase = {"forward": rates.zero_forward, "backward": rates.zero_backward, "step": rates.zero_optimizer}
    return {f"DeepSpeed {name}": weights * seconds[stage] for name, seconds in by_phase.items()}
