"""The backbone's optimizer and the centers' share, from their configuration."""

import pytest
import torch
from torch import nn

from trainer.checkpoint.trained import load_optimizer_state, optimizer_state
from trainer.optimizer_config import OptimizerConfig
from trainer.optimizers import backbone_optimizer

pytestmark = pytest.mark.unit


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(4, 2))


def test_sgd_is_as_it_always_was() -> None:
    optimizer = backbone_optimizer(OptimizerConfig(lr=0.3, momentum=0.8, weight_decay=0.01), network())
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], len(group["params"])) == (0.3, 0.8, 0.01, 7)


def test_adamw_without_decay_of_norms_biases_and_slopes() -> None:
    config = OptimizerConfig(
        kind="adamw", lr=1e-3, weight_decay=0.1, decay_norm_and_bias=False, center_lr=0.1, betas=(0.8, 0.9), eps=1e-6
    )
    optimizer = backbone_optimizer(config, network())
    assert isinstance(optimizer, torch.optim.AdamW)
    decayed, plain = optimizer.param_groups
    assert [tuple(each.shape) for each in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert len(plain["params"]) == 5
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert (decayed["betas"], decayed["eps"], decayed["lr"]) == ((0.8, 0.9), 1e-6, 1e-3)


def test_what_does_not_learn_is_left_out() -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    assert len(backbone_optimizer(OptimizerConfig(), module).param_groups[0]["params"]) == 6


@pytest.mark.parametrize(
    ("settings", "share", "decay"),
    [
        ({}, 1.0, 5e-4),
        ({"weight_decay": 1e-3}, 1.0, 1e-3),
        ({"lr": 0.2, "center_lr": 0.1, "center_weight_decay": 0.0}, 0.5, 0.0),
        ({"kind": "adamw", "lr": 1e-3, "center_lr": 0.1, "weight_decay": 0.05}, 100.0, 5e-4),
        ({"kind": "adamw", "lr": 1e-3, "center_lr": 0.1, "center_weight_decay": 1e-4}, 100.0, 1e-4),
    ],
)
def test_the_centers_have_their_own(settings: dict[str, object], share: float, decay: float) -> None:
    config = OptimizerConfig(**settings)
    assert config.center_lr_share == pytest.approx(share)
    assert config.decay_of_centers == decay


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "adamw"}, "optimizer.center_lr is missing"),
        ({"betas": (0.5, 0.9)}, "'betas' has no meaning for kind 'sgd'"),
        ({"eps": 1e-6}, "'eps' has no meaning for kind 'sgd'"),
        ({"kind": "lion"}, "Input should be 'sgd' or 'adamw'"),
        ({"betas": (0.5, 1.0)}, "less than 1"),
    ],
)
def test_what_has_no_effect_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**settings)


def test_state_goes_by_name_whatever_the_groups() -> None:
    """Groups without decay number the parameters in another order."""
    config = OptimizerConfig(kind="adamw", lr=1e-3, decay_norm_and_bias=False, center_lr=0.1)
    module = network()
    optimizer = backbone_optimizer(config, module)
    module(torch.randn(5, 3, 3, 3)).square().sum().backward()
    optimizer.step()
    state = optimizer_state(module, optimizer)
    shapes = {name: tuple(each["exp_avg"].shape) for name, each in state.items()}
    assert shapes == {name: tuple(each.shape) for name, each in module.named_parameters()}
    other = network()
    one_group = backbone_optimizer(config.model_copy(update={"decay_norm_and_bias": True}), other)
    load_optimizer_state(other, one_group, state)
    for name, parameter in other.named_parameters():
        assert torch.equal(one_group.state[parameter]["exp_avg_sq"], state[name]["exp_avg_sq"])
    with pytest.raises(ValueError, match="the backbone has no parameter missing"):
        load_optimizer_state(other, one_group, {"missing": {}})
