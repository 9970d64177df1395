"""From options, a run's configuration and a calibration to what is planned, and on what."""

import argparse
from typing import Any

from trainer.available_memory import available_bytes
from trainer.config import Config, config_from, load_config
from trainer.errors import ConfigError
from trainer.plan.calibration import for_ranks, read_calibration
from trainer.plan.devices import GIB, NUMBERS, device_named, read_device, with_values
from trainer.plan.gpu_calibration import MeasuredGpu, measured_gpu
from trainer.plan.planning import Machine, require_possible
from trainer.plan.problem import Problem
from trainer.plan.rates import rates_of

KEYS = {
    "identities": ("data", "num_identities"),
    "backbone": ("backbone", "name"),
    "embedding_dim": ("backbone", "embedding_dim"),
    "precision": ("backbone", "precision"),
    "activation_checkpointing": ("backbone", "activation_checkpointing"),
    "image_size": ("data", "image_size"),
    "batch_size": ("data", "batch_size"),
    "loss": ("head", "loss"),
    "sample_rate": ("head", "sample_rate"),
    "center_dtype": ("head", "center_dtype"),
    "center_memory": ("head", "center_memory"),
    "micro_batches": ("train", "micro_batches"),
}
"""Options, and the keys of a configuration that they stand for."""
DEFAULTS: dict[str, dict[str, Any]] = {"backbone": {"name": "iresnet50"}, "data": {"batch_size": 128}}
NOWHERE: dict[str, dict[str, Any]] = {
    "run": {"output": "planned"},
    "data": {"records": "planned"},
    "train": {"epochs": 1},
}
RANKS = 8


def machine_of(args: argparse.Namespace) -> Machine:
    """The device of the options. Raises ConfigError for unknown ones and impossible numbers."""
    if args.device is not None and args.device_file is not None:
        raise ConfigError("--device and --device-file both name the device: leave one out")
    gpu = None if args.calibration is None else measured_gpu(args.calibration)
    if gpu is not None:
        return _measured_gpu(args, gpu)
    calibrated = args.calibration is not None
    if calibrated and (args.device not in (None, "cpu") or args.device_file is not None):
        raise ConfigError(f"--calibration {args.calibration} is of a CPU: leave --device out, or --device cpu")
    if args.device_file is not None:
        device = read_device(args.device_file)
    else:
        device = device_named(args.device or ("cpu" if calibrated else "h100"))
    given = {name: getattr(args, name) for name in NUMBERS if getattr(args, name) is not None}
    ranks = _ranks(args, on_cpu=device.is_cpu)
    if calibrated:
        unread = next((name for name in given if name != "memory"), None)
        if unread is not None:
            raise ConfigError(f"--{unread} has no effect with --calibration, which has measured it: leave one out")
        rates = for_ranks(read_calibration(args.calibration), min(ranks, args.ranks_per_node))
        memory = (args.memory * GIB) if args.memory else float(available_bytes() or device.memory)
        here = max(1, min(ranks, args.ranks_per_node))
        with_values(device, given, "--")
        return Machine("this machine", memory / here, True, rates)
    device = with_values(device, given, "--")
    return Machine(device.name, device.memory, device.is_cpu, rates_of(device))


def _measured_gpu(args: argparse.Namespace, gpu: MeasuredGpu) -> Machine:
    if args.device not in (None, gpu.sheet) or args.device_file is not None:
        raise ConfigError(f"--calibration {args.calibration} is of {gpu.sheet}: leave --device and --device-file out")
    unread = next((name for name in NUMBERS if name != "memory" and getattr(args, name) is not None), None)
    if unread is not None:
        raise ConfigError(f"--{unread} has no effect with --calibration, which has measured it: leave one out")
    ranks = _ranks(args, on_cpu=False)
    rates = for_ranks(read_calibration(args.calibration), min(ranks, args.ranks_per_node))
    if args.memory is not None:
        with_values(device_named(gpu.sheet), {"memory": args.memory}, "--")
    memory = gpu.memory if args.memory is None else args.memory * GIB
    return Machine(f"{gpu.sheet}, as measured", memory, False, rates)


def problem_of(args: argparse.Namespace, *, on_cpu: bool) -> Problem:
    """The configuration with the options' values in it. Raises ConfigError as reading one does."""
    ranks = _ranks(args, on_cpu=on_cpu)
    config = _config(args)
    if args.config is not None and args.ranks is None and args.world_size is None and config.run.world_size:
        ranks = config.run.world_size
    identities = config.data.num_identities
    if identities is None:
        raise ConfigError("how many identities? --identities N, or data.num_identities in the configuration")
    # A number of ranks asked for here is what is planned, whatever the configuration insists on elsewhere.
    if args.ranks is not None:
        config = config.model_copy(update={"run": config.run.model_copy(update={"world_size": None})})
    return Problem(config, identities, args.images, ranks, args.ranks_per_node)


def _ranks(args: argparse.Namespace, *, on_cpu: bool) -> int:
    if args.ranks is not None and args.world_size is not None and args.ranks != args.world_size:
        raise ConfigError(f"--ranks {args.ranks} and --world-size {args.world_size} differ: give one of them")
    given = args.world_size if args.ranks is None else args.ranks
    ranks: int = (1 if on_cpu else RANKS) if given is None else given
    require_possible(ranks)
    return ranks


def _config(args: argparse.Namespace) -> Config:
    overrides = list(args.overrides)
    values: dict[str, dict[str, Any]] = {}
    for option, (table, key) in KEYS.items():
        value = getattr(args, option)
        if value is not None:
            values.setdefault(table, {})[key] = value
            overrides.append(f"{table}.{key}={_toml(value)}")
    if args.config is not None:
        return load_config(args.config, overrides)
    merged = {
        table: NOWHERE.get(table, {}) | DEFAULTS.get(table, {}) | values.get(table, {})
        for table in {*NOWHERE, *DEFAULTS, *values}
    }
    return config_from(merged, "pfc plan", args.overrides)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
