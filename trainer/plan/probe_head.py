"""What steps of the head cost on this machine."""

from trainer.bench.batches import draw_batches
from trainer.bench.contestants import build
from trainer.bench.geometry import Geometry
from trainer.bench.problem import ALL_ACTIVE, SFACE, Problem
from trainer.plan.clock import Clock

DIM = 512
FEW_ROWS, MANY_ROWS, FEW_SAMPLES, MANY_SAMPLES = 6_000, 30_000, 32, 128  # of a rank
ROWS, SAMPLES = 8_000, 64  # of a rank, where all pairs are taken


def head_costs(
    clock: Clock, rows: tuple[int, int] = (FEW_ROWS, MANY_ROWS), samples: tuple[int, int] = (FEW_SAMPLES, MANY_SAMPLES)
) -> tuple[float, float, float, float]:
    """(fixed, of a row, of a sample, of a pair) of a screened step, from four sizes of it: few and many of a rank."""
    ranks = clock.world.world_size
    (few_rows, many_rows), (few, many) = rows, samples
    times = {(count, batch): _head_step(clock, SFACE, count, batch) for count in rows for batch in samples}
    row_span, sample_span = many_rows - few_rows, (many - few) * ranks
    least = times[few_rows, few]
    by_rows = times[many_rows, few] - least
    by_samples = times[few_rows, many] - least
    both = times[many_rows, many] - least - by_rows - by_samples
    pair = max(0.0, both / (row_span * sample_span))
    row = max(0.0, by_rows / row_span - pair * few * ranks)
    sample = max(0.0, by_samples / sample_span - pair * few_rows)
    rest = row * few_rows + sample * few * ranks + pair * few_rows * few * ranks
    return max(0.0, least - rest), row, sample, pair


def times_product(clock: Clock, method: str, product: float, rows: int = ROWS, samples: int = SAMPLES) -> float:
    """A whole step over the bare product at ``product`` operations/s."""
    everyone = samples * clock.world.world_size
    return _head_step(clock, method, rows, samples) / (2.0 * rows * DIM * everyone / product)


def _head_step(clock: Clock, method: str, rows: int, batch: int) -> float:
    world = clock.world
    problem = Problem(method, rows * world.world_size, DIM, batch, 0.06, 1e-3)
    geometry = Geometry(DIM, problem.spread, 0, all_active=method == ALL_ACTIVE)
    contestant = build(problem, geometry, world, 0)
    batches = iter(draw_batches(16, problem, contestant.centers, geometry, world, 0))
    for _ in range(8 if method == SFACE else 3):
        contestant.step(next(batches))
    return clock.seconds(lambda: contestant.step(next(batches)), 5)
