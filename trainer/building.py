"""What a run trains: backbone, head and their optimizers, and the engine that spreads the backbone over the ranks."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from partial_fc import CenterSGD, PartialFC
from trainer.backbones import build_backbone
from trainer.checkpoint import Trained, read_weights
from trainer.config import Config
from trainer.engine import DDPEngine, DeepSpeedEngine, Engine, LossScaler
from trainer.optimizers import backbone_optimizer
from trainer.world import World, prepare_deepspeed


def build_trained(
    config: Config, num_identities: int, world: World, *, check: Callable[[nn.Module, Optimizer], None] | None = None
) -> tuple[Trained, Engine]:
    """Backbone, head and their optimizers, on this rank's device, and the engine that spreads the backbone over the
    ranks; weights depend on run.seed alone. check: of the backbone and its optimizer, before the engine has them.

    Raises ConfigError for a backbone that cannot be built, compiled or handed to DeepSpeed as configured.
    """
    torch.manual_seed(config.run.seed)
    backbone: nn.Module = build_backbone(
        config.backbone, image_size=config.data.image_size, read_weights=read_weights
    ).to(world.device)
    # From here on ranks draw (dropout) differently, but each the same in every run of this world size.
    torch.manual_seed(config.run.seed * 1_000_003 + world.rank + 1)
    head = PartialFC(
        num_identities,
        config.backbone.embedding_dim,
        config.head.build(),
        tolerance=config.head.tolerance,
        sample_rate=config.head.sample_rate,
        device=world.device,
        seed=config.run.seed,
        center_dtype=config.head.center_dtype,
        center_memory=config.head.center_memory,
    )
    chosen = config.optimizer
    center_optimizer = CenterSGD(
        head, lr=chosen.lr * chosen.center_lr_share, momentum=chosen.momentum, weight_decay=chosen.decay_of_centers
    )
    optimizer = backbone_optimizer(chosen, backbone)
    if check is not None:
        check(backbone, optimizer)
    scaler = LossScaler() if config.backbone.precision == "float16" else None
    compiled_batch = -(-config.data.batch_size // config.train.micro_batches) if config.train.compile else None
    if config.train.engine == "deepspeed":
        prepare_deepspeed(world)
        deepspeed = DeepSpeedEngine(
            backbone,
            optimizer,
            world,
            image_size=config.data.image_size,
            table=config.deepspeed,
            clip_norm=config.train.clip_norm,
            compiled_batch=compiled_batch,
        )
        return Trained(backbone, optimizer, head, center_optimizer, deepspeed.partitioned), deepspeed
    engine = DDPEngine(
        backbone,
        optimizer,
        world,
        image_size=config.data.image_size,
        clip_norm=config.train.clip_norm,
        loss_scaler=scaler,
        compiled_batch=compiled_batch,
    )
    return Trained(backbone, optimizer, head, center_optimizer, loss_scaler=scaler), engine
