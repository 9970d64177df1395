"""What one rank measures of its machine while the others of it measure the same: ``python -m trainer.plan.probe``.

Started by :mod:`trainer.plan.calibrate`, as many at once as a layout has ranks. Rank 0 prints one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

import trainer.training  # noqa: F401  # what training imports is in its memory
from trainer.bench.problem import ALL_ACTIVE, COSFACE
from trainer.memory import keep_freed_memory
from trainer.plan import probe_machine
from trainer.plan.clock import Clock
from trainer.plan.probe_backbones import backbone_times
from trainer.plan.probe_head import DIM, head_costs, times_product
from trainer.plan.rank_folder import rank_folder
from trainer.plan.rates import PASSES_OVER_WEIGHTS, Rates
from trainer.world import World, joined_world


def measure(world: World, folder: Path, threads: int, now: Callable[[], float], *, passes: bool) -> Rates:
    """Every rank calls it; each figure is of the slowest one. now: seconds. passes: time backbones here, alone, and not
    in trainings. process: without pages of files, which ``heap.with_heap`` adds, as it does what trainings tell.
    """
    keep_freed_memory()  # as in training
    torch.set_num_threads(threads)
    clock = Clock(world, now)
    decode, process = probe_machine.decoding(world, folder)
    product, screen = probe_machine.product(clock), probe_machine.int8_product(clock)
    bandwidth = probe_machine.bandwidth(clock)
    link, latency = probe_machine.exchange(clock)
    fixed, row, sample, pair = head_costs(clock)
    grouped = product * 0.2
    rates = Rates(
        product=product,
        screen=screen,
        pair_seconds=max(0.0, pair - 2.0 * DIM / screen),
        row_seconds=row / DIM,
        sample_seconds=sample,
        head_seconds=fixed,
        dense=times_product(clock, ALL_ACTIVE, product),
        softmax=times_product(clock, COSFACE, product),
        flops=product,
        flops16=product,
        grouped=grouped,
        bandwidth=bandwidth,
        link=link,
        network=link,
        latency=latency,
        decode=decode,
        disk=probe_machine.disk(clock, folder),
        process=process,
        host_process=process,
        deepspeed=probe_machine.deepspeed_libraries(),
        overlap=False,
        update=PASSES_OVER_WEIGHTS / bandwidth,
    )
    if not passes:
        return rates
    forward, backward = backbone_times(clock, product, grouped, bandwidth, "float32")
    forward16, backward16 = backbone_times(clock, product, grouped, bandwidth, "bfloat16")
    return replace(rates, forward=forward, backward=backward, forward16=forward16, backward16=backward16)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    threads = arguments.threads
    now = (lambda: time.process_time() / threads) if arguments.processor_time else time.perf_counter
    with joined_world("cpu", expected_size=None, timeout_seconds=120.0) as world:
        with rank_folder(arguments.folder) as folder:
            rates = measure(world, folder, threads, now, passes=arguments.processor_time)
        if world.is_first:
            print(json.dumps(rates.to_dict()), flush=True)


if __name__ == "__main__":
    main()
