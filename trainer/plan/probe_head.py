"""What steps of the head cost on this machine."""

from trainer.bench.batches import draw_batches
from trainer.bench.contestants import build
from trainer.bench.geometry import Geometry
from trainer.bench.problem import ALL_ACTIVE, SFACE, Problem
from trainer.plan.clock import Clock

DIM = 512
FEW_ROWS, MANY_ROWS, FEW_SAMPLES, MANY_SAMPLES = 6_000, 30_000, 32, 128  # of a rank


def head_costs(clock: Clock) -> tuple[float, float, float, float]:
    """(fixed, of a row, of a sample, of a pair) of a screened step, from four sizes of it."""
    ranks = clock.world.world_size
    times = {
        (rows, batch): _head_step(clock, SFACE, rows, batch)
        for rows in (FEW_ROWS, MANY_ROWS)
        for batch in (FEW_SAMPLES, MANY_SAMPLES)
    }
    row_span, sample_span = MANY_ROWS - FEW_ROWS, (MANY_SAMPLES - FEW_SAMPLES) * ranks
    least = times[FEW_ROWS, FEW_SAMPLES]
    by_rows = times[MANY_ROWS, FEW_SAMPLES] - least
    by_samples = times[FEW_ROWS, MANY_SAMPLES] - least
    both = times[MANY_ROWS, MANY_SAMPLES] - least - by_rows - by_samples
    pair = max(0.0, both / (row_span * sample_span))
    row = max(0.0, by_rows / row_span - pair * FEW_SAMPLES * ranks)
    sample = max(0.0, by_samples / sample_span - pair * FEW_ROWS)
    rest = row * FEW_ROWS + sample * FEW_SAMPLES * ranks + pair * FEW_ROWS * FEW_SAMPLES * ranks
    return max(0.0, least - rest), row, sample, pair


def times_product(clock: Clock, method: str, product: float) -> float:
    """A whole step over the bare product at ``product`` operations/s."""
    samples = 64 * clock.world.world_size
    return _head_step(clock, method, 8_000, 64) / (2.0 * 8_000 * DIM * samples / product)


def _head_step(clock: Clock, method: str, rows: int, batch: int) -> float:
    world = clock.world
    problem = Problem(method, rows * world.world_size, DIM, batch, 0.06, 1e-3)
    geometry = Geometry(DIM, problem.spread, 0, all_active=method == ALL_ACTIVE)
    contestant = build(problem, geometry, world, 0)
    batches = iter(draw_batches(16, problem, contestant.centers, geometry, world, 0))
    for _ in range(8 if method == SFACE else 3):
        contestant.step(next(batches))
    return clock.seconds(lambda: contestant.step(next(batches)), 5)
