"""Medians and quartiles of one measurement."""

import statistics
from collections import Counter
from collections.abc import Sequence

from partial_fc import HeadStats
from trainer.bench.problem import ALL_ACTIVE, PRODUCT, SFACE, Effort, Problem, Row


def summarise(
    problem: Problem,
    effort: Effort,
    *,
    world_size: int,
    device: str,
    product_seconds: Sequence[float],
    step_seconds: Sequence[float],
    stats: Sequence[HeadStats],
    centers_bytes: int,
    extra_bytes: tuple[int, int] | None,
) -> Row:
    """One row from the timed steps, product and step in turn; stats: of each step, empty for a method without any.

    extra_bytes: peak beyond the centers in the timed steps and since the first one; None where nothing counts it.
    """
    ratios = [step / product for product, step in zip(product_seconds, step_seconds, strict=True)]
    seconds_q1, seconds, seconds_q3 = quartiles(step_seconds)
    ratio_q1, ratio, ratio_q3 = quartiles(ratios)
    # Pages come and go beside what is measured: a method that keeps nothing may seem to give some back.
    extra, extra_ever = (None, None) if extra_bytes is None else (max(0, size) for size in extra_bytes)
    samples = problem.batch * world_size
    return Row(
        method=problem.method,
        num_classes=problem.num_classes,
        embedding_dim=problem.embedding_dim,
        batch=problem.batch,
        spread=None if problem.method in (PRODUCT, ALL_ACTIVE) else problem.spread,
        tolerance=problem.tolerance if problem.method in (SFACE, ALL_ACTIVE) else None,
        world_size=world_size,
        device=device,
        threads=effort.threads,
        repetitions=len(ratios),
        warmup=effort.warmup,
        seed=effort.seed,
        seconds=seconds,
        seconds_q1=seconds_q1,
        seconds_q3=seconds_q3,
        product_seconds=statistics.median(product_seconds),
        ratio=ratio,
        ratio_q1=ratio_q1,
        ratio_q3=ratio_q3,
        mode=modes([each.mode for each in stats]),
        active_pairs=statistics.median(each.active_pairs for each in stats) / samples if stats else None,
        cut=statistics.median(each.cut for each in stats) if stats else None,
        error=max(each.error for each in stats) if stats else None,
        center_dtype=problem.center_dtype,
        center_memory=problem.center_memory,
        centers_bytes=centers_bytes,
        extra_bytes=extra,
        extra_over_centers=None if extra is None else extra / centers_bytes,
        extra_bytes_ever=extra_ever,
        bytes_moved=stats[-1].bytes_moved if stats else 0,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third, by linear interpolation; a single value is all three."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def modes(found: Sequence[str]) -> str | None:
    """ "dense" where all steps were; "screened 4 dense 1" where the head changed its mind; None for no steps."""
    counts = Counter(found).most_common()
    if len(counts) < 2:
        return counts[0][0] if counts else None
    return " ".join(f"{mode} {count}" for mode, count in counts)
