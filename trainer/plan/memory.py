"""Memory of one rank by part, in the steady phase of a training and in its worst one, bytes.

Shape letters: R classes of the rank, N samples the head sees together, D embedding size, W ranks, P weights.
"""

import math
from dataclasses import dataclass

import torch

from partial_fc.drop_sample import FEWEST_SAMPLED, SAMPLED_SHARE
from partial_fc.head import TILE_CLASSES, TILE_CLASSES_ON_GPU
from partial_fc.kept_coefficients import SHARE_OF_CENTERS, SHARE_OF_ROWS
from partial_fc.kernels_torch import tile_rows
from partial_fc.momentum_slots import GROWTH
from partial_fc.row_tables import CODE_ALIGNMENT
from partial_fc.screened_pass import MOST_TILE
from partial_fc.staged_rows import MOST_STAGED
from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.deepspeed_buffers import deepspeed_buffers
from trainer.plan.problem import Problem
from trainer.plan.rates import Rates, family

FLOAT = 4
SLOT_BYTES = 4 + 4 + 4 + 8  # of a row in motion beside its momentum: touched, expiry, unrest, owner
ROW_BYTES = 4 + 1  # of every row: place of its momentum, whether it was seen
CODE_ROW_BYTES = 4 + 4  # scale and slack
PLACE = 4  # where a row of host memory lies on the device
LIFE = 110  # steps that a row's momentum 0.9 lives after a touch, at lr 0.1
TOUCHED_PER_SAMPLE = 7.5  # rows: its own, and active negatives at a spread of 0.06 and tolerance 1e-3
PAIR_BYTES = 8 + 4 + 4 + 4
SCREEN_SHARES = 16  # parts of the gradient on a GPU
GIB = float(1 << 30)


@dataclass(frozen=True)
class Part:
    """on_device: False for what lies in host memory beside a GPU; on the CPU it is all the same memory."""

    name: str
    steady: float
    worst: float
    on_device: bool = True


@dataclass(frozen=True)
class Memory:
    """All parts of a rank."""

    parts: tuple[Part, ...]

    def device(self, *, worst: bool) -> float:
        """Bytes on the device."""
        return sum(part.worst if worst else part.steady for part in self.parts if part.on_device)

    def host(self, *, worst: bool) -> float:
        """Bytes in host memory."""
        return sum(part.worst if worst else part.steady for part in self.parts if not part.on_device)


def memory_of(problem: Problem, rates: Rates, *, on_cpu: bool) -> Memory:
    """Of the rank with most classes, rank 0, which also keeps what is written once.

    steady: rows in motion as in a training under way. worst: every pair active, every row in motion.
    """
    head = _head(problem, on_cpu=on_cpu)
    host = [
        _same("process", _process(problem, rates), on_device=on_cpu),
        _same("decoded batches", batches(problem)),
        _copy(problem, on_cpu=on_cpu),
    ]
    device = [] if on_cpu else [Part("context", rates.process, rates.process)]
    zero = [_deepspeed(problem, rates, on_cpu=on_cpu)] if problem.zero_stage else []
    return Memory((*device, *head, *_backbone(problem), *zero, _activations(problem, rates), *host))


def held(problem: Problem, *, on_cpu: bool) -> float:
    """Bytes of head and backbone in the steady phase, without activations."""
    return sum(part.steady for part in (*_head(problem, on_cpu=on_cpu), *_backbone(problem)))


def rows_in_motion(problem: Problem) -> float:
    """Of the R rows those touched within a row's life, if touches are spread evenly."""
    samples = problem.batch * problem.ranks
    touches = samples * TOUCHED_PER_SAMPLE * LIFE / problem.identities
    return problem.rows * -math.expm1(-touches)


def _same(name: str, nbytes: float, *, on_device: bool = True) -> Part:
    """In every phase."""
    return Part(name, nbytes, nbytes, on_device)


def _head(problem: Problem, *, on_cpu: bool) -> list[Part]:
    rows, dim, kind = problem.rows, problem.dim, problem.head_kind
    centers = problem.center_bytes * rows * dim
    in_host = problem.config.head.center_memory == "host"
    parts = [Part("centers", centers, centers, on_device=on_cpu or not in_host)]
    if in_host:
        staged = float(problem.center_bytes * min(rows, MOST_STAGED) * dim)
        full = problem.center_bytes * min(rows, MOST_TILE) * dim  # should every row of a tile be scored
        parts.append(Part("staged centers", staged + PLACE * rows, max(staged, full) + PLACE * rows))
    if kind != "full":
        taken = min(rows, max(round(problem.config.head.sample_rate * rows), 1))
        momentum = FLOAT * rows * dim + rows
        parts.append(Part("center momentum", momentum, momentum, on_device=on_cpu or not in_host))
        unit = FLOAT * taken * dim if kind == "sampled" else 0
        keys = 16.0 * rows if kind == "sampled" else 0.0  # of the draw
        if in_host and kind != "sampled":  # computed tile by tile when the optimizer steps
            taken = min(rows, TILE_CLASSES if on_cpu else TILE_CLASSES_ON_GPU)
        parts.append(_same("center gradient", FLOAT * taken * dim + unit + keys))
    else:
        codes = rows * (-(-dim // CODE_ALIGNMENT) * CODE_ALIGNMENT + CODE_ROW_BYTES)
        parts.append(Part("int8 codes", codes, codes))
        of_a_row = FLOAT * dim + SLOT_BYTES
        steady = rows_in_motion(problem) * of_a_row * (1.0 if on_cpu else GROWTH)
        # An array that grows on a GPU lies there twice for a moment.
        growing = 1.0 if on_cpu else 1.0 + 1.0 / GROWTH
        worst = rows * of_a_row * growing
        parts.append(Part("center momentum", steady + ROW_BYTES * rows, worst + ROW_BYTES * rows))
    screened, dense = _buffers(problem, on_cpu=on_cpu)
    parts.append(Part("head buffers", screened if kind == "full" else dense, dense))
    return parts


def _buffers(problem: Problem, *, on_cpu: bool) -> tuple[float, float]:
    """Of a screened and of a dense step (or of any other loss)."""
    rows, dim, samples = problem.rows, problem.dim, problem.global_micro_batch
    padded = -(-samples // CODE_ALIGNMENT) * CODE_ALIGNMENT
    batch = 6.0 * FLOAT * samples * dim  # gathered, unit, transposed, gradient, codes
    tile = min(rows, TILE_CLASSES if on_cpu else TILE_CLASSES_ON_GPU)
    tiles = FLOAT * tile * (2.0 * dim + samples)
    kept: float = 0.0
    if problem.head_kind == "full":
        most = min(int(SHARE_OF_CENTERS * rows * dim / samples), int(SHARE_OF_ROWS * rows)) // tile * tile
        kept = FLOAT * most * samples
    stride = max(1, min(SAMPLED_SHARE, problem.identities // FEWEST_SAMPLED))
    sampled = rows / stride
    # Centers, their pull; coefficients, weighted ones; push and the samples' own matrix.
    sample = FLOAT * (2.0 * sampled * dim + 2.0 * sampled * samples + samples * dim + samples * samples)
    pairs = PAIR_BYTES * TOUCHED_PER_SAMPLE * 4 * samples
    if on_cpu:
        scores = 1.0 * FLOAT * padded * min(rows, tile_rows(padded, torch.device("cpu")))
        blocks = FLOAT * torch.get_num_threads() * padded * dim
    else:
        scores = PAIR_BYTES * 1e-3 * rows * padded  # candidates beyond the active pairs
        blocks = FLOAT * SCREEN_SHARES * padded * dim
    return batch + sample + pairs + scores + blocks, batch + tiles + kept + sample


def _backbone(problem: Problem) -> list[Part]:
    config = problem.config
    cost = backbone_cost(config.backbone, config.data.image_size)
    weights = float(FLOAT * cost.parameters)
    stage, ranks = problem.zero_stage, problem.ranks
    slots = 1.0 if config.optimizer.kind == "sgd" else 2.0
    split_state = 1.0 if stage is None or stage < 1 else 1.0 / ranks
    split_gradient = 1.0 if stage is None or stage < 2 else 1.0 / ranks
    split_weights = 1.0 if stage is None or stage < 3 else 1.0 / ranks
    masters = weights * split_state if stage in (1, 2) else 0.0  # DeepSpeed's flat copy; in stage 3 the weights' own
    lowered = 0.0 if config.backbone.precision == "float32" else weights / 2
    buffers = 2.0 * cost.buffers  # as they are and as they were before the step
    return [
        _same("backbone weights", weights * split_weights + lowered + buffers),
        _same("backbone gradients", weights * split_gradient),
        _same("backbone optimizer", weights * slots * split_state + masters),
    ]


def _deepspeed(problem: Problem, rates: Rates, *, on_cpu: bool) -> Part:
    return _same(
        "DeepSpeed buffers", deepspeed_buffers(problem, on_cpu=on_cpu) + rates.zero_memory[str(problem.zero_stage)]
    )


def computed_activations(problem: Problem) -> float:
    """Most bytes of activations that are alive at a time, from their shapes."""
    cost = backbone_cost(problem.config.backbone, problem.config.data.image_size)
    return cost.peak * problem.micro_batch / cost.images


def _activations(problem: Problem, rates: Rates) -> Part:
    backbone = problem.config.backbone
    factors = rates.activations if backbone.precision == "float32" else rates.activations16
    return _same("activations", computed_activations(problem) * factors[family(backbone.name)])


def _process(problem: Problem, rates: Rates) -> float:
    """Libraries, and what ZeRO 3 evaluates with: a whole copy of the network."""
    if problem.zero_stage is None:
        return rates.host_process
    config = problem.config
    copied = backbone_cost(config.backbone, config.data.image_size).parameters if problem.zero_stage == 3 else 0
    return rates.host_process + rates.deepspeed + FLOAT * copied


def batches(problem: Problem) -> float:
    """Decoded ahead, the one in use, and the one whose copy is being made."""
    data = problem.config.data
    return float(FLOAT * 3 * data.image_size**2 * problem.batch * (data.prefetch + 2))


def _copy(problem: Problem, *, on_cpu: bool) -> Part:
    """Of a rank's part of a checkpoint; made once there is a checkpoint to come."""
    checkpoint = problem.config.checkpoint
    if not checkpoint.asynchronous or not checkpoint.every_steps:
        return Part("checkpoint copy", 0.0, 0.0, on_device=on_cpu)
    return Part(
        "checkpoint copy",
        checkpoint_bytes(problem, worst=False)[0],
        checkpoint_bytes(problem, worst=True)[0],
        on_device=on_cpu,
    )


def checkpoint_bytes(problem: Problem, *, worst: bool) -> tuple[float, float]:
    """``(what rank 0 writes, the whole)``: centers, momentum, seen classes; the backbone and its optimizer once."""
    rows, dim = problem.rows, problem.dim
    moving = float(rows) if worst or problem.head_kind != "full" else rows_in_motion(problem)
    of_a_row = FLOAT * dim + (SLOT_BYTES if problem.head_kind == "full" else 0)
    own = rows * (problem.center_bytes * dim + 1) + moving * of_a_row
    cost = backbone_cost(problem.config.backbone, problem.config.data.image_size)
    slots = 1 if problem.config.optimizer.kind == "sgd" else 2
    shared = FLOAT * cost.parameters * (1 + slots) + cost.buffers
    return own + shared, own * problem.identities / rows + shared
