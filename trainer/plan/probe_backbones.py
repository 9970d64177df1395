"""How long backbones take on this machine over what their operations and shapes let expect."""

import statistics

import torch

from trainer.agreement import largest
from trainer.backbones import BackboneConfig, build_backbone
from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.clock import Clock
from trainer.plan.rates import FAMILIES, family

BACKBONES = {"mobilefacenet": 8, "iresnet18": 4, "vit_t": 2}  # images of a pass
IMAGE_SIZE = 112
WARM_PASSES, TIMED_PASSES = 2, 3


def backbone_times(
    clock: Clock, flops: float, grouped: float, bandwidth: float, precision: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Forward and backward by family: measured over computed seconds."""
    forward, backward = (dict.fromkeys(FAMILIES, 1.0) for _ in range(2))
    for name, batch in BACKBONES.items():
        config = BackboneConfig.model_validate({"name": name, "precision": precision})
        cost = backbone_cost(config, IMAGE_SIZE)
        computed = [batch * each for each in cost.seconds(flops, grouped, bandwidth)]
        network = build_backbone(config, image_size=IMAGE_SIZE)
        images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE)
        measured = timed_passes(clock, network, images, warm=WARM_PASSES, timed=TIMED_PASSES)
        forward[family(name)], backward[family(name)] = (
            one / other for one, other in zip(measured, computed, strict=True)
        )
    return forward, backward


def timed_passes(
    clock: Clock, network: torch.nn.Module, images: torch.Tensor, *, warm: int, timed: int
) -> tuple[float, float]:
    """Seconds of forward and backward as in training, one after the other, of images [B, 3, S, S]; medians of ``timed``
    times after ``warm``, each of the slowest rank.
    """
    found: list[tuple[float, float]] = []
    for _ in range(warm + timed):
        clock.meet()
        began = clock.now()
        embeddings = network(images)
        scored = clock.now()
        torch.autograd.backward(embeddings.sum())
        ended = clock.now()
        del embeddings  # and its graph
        network.zero_grad(set_to_none=True)
        found.append((largest(clock.world, scored - began), largest(clock.world, ended - scored)))
    forward, backward = zip(*found[warm:], strict=True)
    return statistics.median(forward), statistics.median(backward)
