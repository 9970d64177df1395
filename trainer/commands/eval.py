"""``pfc eval MODEL --pairs FILE``: verification accuracy of a trained, published or untrained network."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from data_pipeline.pairs import Pairs, read_pairs
from trainer.backbones import BACKBONE_NAMES, BackboneConfig, build_backbone, load_pretrained
from trainer.checkpoint import load_backbone
from trainer.errors import ConfigError, ExitCode
from trainer.evaluation import Evaluator, VerificationResult, save_result
from trainer.evaluation.embed import decode_images, embed_images
from trainer.evaluation.store import result_numbers
from trainer.evaluation.table import format_table
from trainer.evaluation.untrained import CALIBRATION_BATCHES, calibrate_batch_norm
from trainer.world import choose_device


def add_parser(subparsers: Any) -> None:
    """Add ``eval`` to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="verification accuracy of a model on pairs of faces",
        description="Evaluate MODEL with flip test: 10-fold accuracy, AUC, equal error rate, TAR at FAR.",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="run folder, checkpoint folder or state-dict file (.pt)"
    )
    parser.add_argument(
        "--checkpoint", metavar="WHICH", help="of a run folder: newest (default), best, or a step, such as 12000"
    )
    parser.add_argument(
        "--pairs", type=Path, action="append", required=True, metavar="FILE", help="verification set (.bin); repeatable"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images per forward pass (default 64)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="also store the results there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    state_dict = parser.add_argument_group("when MODEL is a state-dict file")
    state_dict.add_argument("--backbone", choices=BACKBONE_NAMES, help="the network the weights belong to")
    state_dict.add_argument("--embedding-dim", type=int, metavar="D", help="length of its embeddings (default 512)")
    state_dict.add_argument("--image-size", type=int, metavar="S", help="side of its input images (default 112)")
    floor = parser.add_argument_group("the floor to compare with")
    floor.add_argument("--untrained", action="store_true", help="the same network with random weights instead")
    floor.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    device = _device(arguments.device)
    names = [path.stem for path in arguments.pairs]
    if len(set(names)) != len(names):
        raise ConfigError(f"--pairs: two files share the name '{max(names, key=names.count)}'; rename one")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size {arguments.batch_size}: must be at least 1; 64 is usual")
    sets = [read_pairs(path) for path in arguments.pairs]
    module, image_size, step = _load(arguments, device)
    if arguments.untrained:
        _keep_in_range(module, sets[0], names[0], image_size, arguments.batch_size, device)
    results: list[VerificationResult] = []
    for name, pairs in zip(names, sets, strict=True):
        print(f"evaluating {name}: {len(pairs.same)} pairs", file=sys.stderr, flush=True)
        results.append(Evaluator(name, pairs, image_size, arguments.batch_size, device).evaluate(module))
    for result in results if arguments.output else ():
        save_result(arguments.output, step, result)
    if arguments.json:
        print(json.dumps([result_numbers(step, result) for result in results], indent=2, allow_nan=False))
    else:
        print(format_table(results))
    return ExitCode.DONE


def _load(arguments: argparse.Namespace, device: torch.device) -> tuple[nn.Module, int, int]:
    """The network on ``device``, its image size, and the step of the checkpoint it came from (0: none)."""
    if not arguments.model.exists():
        raise ConfigError(f"{arguments.model}: no such run folder, checkpoint folder or state-dict file")
    if arguments.model.is_file():
        if arguments.checkpoint is not None:
            raise ConfigError(f"--checkpoint {arguments.checkpoint}: {arguments.model} is a file, not a run folder")
        config, image_size = _described(arguments)
        module, step = _build(config, image_size, arguments.seed), 0
        if not arguments.untrained:
            load_pretrained(module, arguments.model)
        return module.to(device), image_size, step
    if arguments.backbone or arguments.embedding_dim or arguments.image_size:
        raise ConfigError(
            f"{arguments.model} is a folder and knows its own network; "
            "leave out --backbone, --embedding-dim and --image-size"
        )
    loaded = load_backbone(arguments.model, device, which=arguments.checkpoint)
    if not arguments.untrained:
        return loaded.module, loaded.image_size, loaded.step
    config = loaded.config.backbone.model_copy(update={"pretrained": None})
    return _build(config, loaded.image_size, arguments.seed).to(device), loaded.image_size, 0


def _described(arguments: argparse.Namespace) -> tuple[BackboneConfig, int]:
    """The network that the options describe."""
    if arguments.backbone is None:
        raise ConfigError(
            f"{arguments.model} holds weights only; say which network they are for: "
            "--backbone NAME [--embedding-dim D] [--image-size S]"
        )
    embedding_dim = 512 if arguments.embedding_dim is None else arguments.embedding_dim
    try:
        config = BackboneConfig(name=arguments.backbone, embedding_dim=embedding_dim)
    except ValidationError:
        raise ConfigError(f"--embedding-dim {embedding_dim}: must be at least 1; 512 is usual") from None
    return config, 112 if arguments.image_size is None else arguments.image_size


def _build(config: BackboneConfig, image_size: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(config, image_size=image_size)


def _keep_in_range(
    module: nn.Module, pairs: Pairs, name: str, image_size: int, batch_size: int, device: torch.device
) -> None:
    """Calibrate the untrained network if its embeddings overflow; leave it as built otherwise.

    As built is the harder floor: MobileFaceNet's reached 66% on LFW's development pairs, 60% calibrated.
    """
    encoded = pairs.jpegs[: CALIBRATION_BATCHES * max(batch_size, 2)]
    images = decode_images(encoded, image_size, name=name)
    if not embed_images(module, images[:batch_size], batch_size=batch_size, device=device).isfinite().all():
        calibrate_batch_norm(module, images, batch_size=batch_size, device=device)
        print("activations overflow as built: batch norm set to the statistics of the images", file=sys.stderr)


def _device(name: str) -> torch.device:
    try:
        return choose_device(name, local_rank=0)
    except ConfigError as error:
        raise ConfigError(str(error).replace("run.device", "--device")) from None
