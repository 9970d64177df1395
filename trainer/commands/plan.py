"""``pfc plan``: what a run would need and take, before there is any hardware."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from trainer.commands.overrides import add_overrides
from trainer.errors import ConfigError, ExitCode

DESCRIPTION = """\
Compute memory, time, network and checkpoints of a run on other machines from its configuration, or from options alone;
say what limits, how many identities fit, and which settings would do better. Nothing is trained and nothing written."""

EPILOG = """\
Of a GPU the figures are computed from its data sheet and from what an H100 and an H200 reached of theirs, or they are
measured first, as on this machine's CPU: pfc plan --calibrate --calibration FILE, for its GPUs with --device h100
(what they are), then pfc plan --calibration FILE ...
--device-file is TOML: like = "h100", and any of memory_gib, bandwidth_gb_s, fp32_tflops, tf32_tflops, bf16_tflops,
int8_tops, interconnect_gb_s, network_gb_s. trainer/plan/README.md has the formulas."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc plan`` to the command line."""
    parser = subparsers.add_parser(
        "plan",
        help="what a run would need and take: memory, time, network, the most identities that fit",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("config", type=Path, nargs="?", metavar="RUN.toml", help="run configuration; options override")
    add_overrides(parser)
    parser.add_argument("--identities", **number, help="classes (default: data.num_identities)")
    parser.add_argument("--images", **number, help="images of an epoch")
    parser.add_argument("--backbone", metavar="NAME", help="backbone.name (default iresnet50)")
    parser.add_argument("--embedding-dim", **number, help="D (default 512)")
    parser.add_argument("--image-size", **number, help="pixels (default 112)")
    parser.add_argument("--batch-size", **number, help="per rank (default 128)")
    parser.add_argument("--ranks", **number, help="W (default: run.world_size, or 8; with a CPU 1)")
    parser.add_argument("--ranks-per-node", **number, default=8, help="that share a machine, default 8")
    parser.add_argument("--precision", metavar="P", help="backbone.precision: float32, bfloat16, float16")
    parser.add_argument("--loss", metavar="L", help="head.loss")
    parser.add_argument("--sample-rate", type=float, metavar="R", help="head.sample_rate")
    parser.add_argument(
        "--center-dtype", metavar="T", choices=["float32", "bfloat16"], help="head.center_dtype: float32 or bfloat16"
    )
    parser.add_argument(
        "--center-memory", metavar="M", choices=["device", "host"], help="head.center_memory: device or host"
    )
    parser.add_argument("--micro-batches", **number, help="train.micro_batches")
    parser.add_argument(
        "--activation-checkpointing", action="store_true", default=None, help="backbone.activation_checkpointing"
    )
    parser.add_argument("--device", metavar="NAME", help="h100 (default), a100-80g, v100-32g, cpu, ...")
    parser.add_argument("--device-file", type=Path, metavar="FILE.toml", help="a device of your own")
    amount: dict[str, Any] = {"type": float, "metavar": "X"}
    parser.add_argument("--memory", **amount, help="GiB of the device, in place of the table's")
    parser.add_argument("--bandwidth", **amount, help="GB/s of its memory")
    for kind in ("fp32", "tf32", "bf16"):
        parser.add_argument(f"--{kind}", **amount, help="TFLOP/s")
    parser.add_argument("--int8", **amount, help="TOP/s")
    parser.add_argument("--interconnect", **amount, help="GB/s of a GPU to others of its node")
    parser.add_argument("--network", **amount, help="GB/s of a GPU to other nodes")
    parser.add_argument(
        "--world-size", **number, help="check the configuration for W ranks and make every rank's centers on the meta "
        "device",
    )  # fmt: skip
    parser.add_argument("--calibrate", action="store_true", help="measure this machine, in about two minutes")
    parser.add_argument(
        "--processor-time", action="store_true", help="calibrate by the processor's clock: where others work, too"
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="what was measured, to write or to read")
    parser.add_argument("--table", action="store_true", help="1M to 100M identities on 8, 16 and 64 GPUs, as Markdown")
    parser.add_argument("--json", action="store_true", help="print JSON: bytes and seconds")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    if args.calibrate:
        return _calibrate(args)
    from trainer.plan.assembling import machine_of, problem_of  # torch is for those who plan
    from trainer.plan.planning import make_plan
    from trainer.plan.report import format_plan, format_shares, plan_facts

    if args.table:
        from trainer.plan.scale_table import scale_table

        print(scale_table())
        return ExitCode.DONE
    machine = machine_of(args)
    problem = problem_of(args, on_cpu=machine.on_cpu)
    shares = None
    if args.world_size is not None:
        from trainer.plan.imagined_ranks import imagined_shares
        from trainer.run_check import check_run

        check_run(problem.config, world_size=problem.ranks, with_data=False)
        shares = imagined_shares(problem.config, problem.identities, problem.ranks)
    plan = make_plan(problem, machine)
    if args.json:
        print(json.dumps(plan_facts(plan, shares), indent=2))
    else:
        print(format_plan(plan) + ("" if shares is None else "\n" + format_shares(shares)))
    return ExitCode.DONE


def _calibrate(args: argparse.Namespace) -> int:
    from trainer.plan.calibration import calibrate
    from trainer.plan.gpu_calibration import calibrate_gpus
    from trainer.plan.local_ranks import terminated_as_interrupted

    if args.calibration is None:
        raise ConfigError("--calibrate: say where the figures go: --calibration FILE")
    on_gpu = args.device not in (None, "cpu")
    if on_gpu and args.processor_time:
        raise ConfigError("--processor-time: a GPU's time is not the processor's; leave it out")
    with terminated_as_interrupted():
        if on_gpu:
            found = calibrate_gpus(args.calibration, args.device)
        else:
            found = calibrate(args.calibration, len(os.sched_getaffinity(0)), processor_time=args.processor_time)
    if args.json:
        print(json.dumps({str(ranks): rates.to_dict() for ranks, rates in found.items()}, indent=2))
    else:
        for ranks, rates in found.items():
            print(
                f"{ranks} {'rank' if ranks == 1 else 'ranks'}: float32 product {rates.product / 1e9:,.0f} GFLOP/s, "
                f"int8 {rates.screen / 1e9:,.0f} GOP/s, memory {rates.bandwidth / 1e9:.1f} GB/s, "
                f"decode {rates.decode:,.0f} "
                f"images/s, disk {rates.disk / 1e6:,.0f} MB/s"
            )
        print(f"written to {args.calibration}")
    return ExitCode.DONE
