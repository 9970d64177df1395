"""Activation checkpointing changes memory and time, nothing else."""

import pytest
import torch
from torch import nn

from trainer.backbones import BackboneConfig, build_backbone
from trainer.backbones.iresnet import IResNet

pytestmark = pytest.mark.unit

CASES = {
    "mobilefacenet": {"dropout": 0.3},
    "iresnet18": {"dropout": 0.3, "normalization": "sync_batch"},
    "iresnet18 bfloat16": {"precision": "bfloat16"},
    "iresnet18 group": {"normalization": "group"},
    "vit_t": {"drop_path": 0.3, "mask_ratio": 0.25, "dropout": 0.3, "patch_size": 8},
}


def built(case, *, checkpointed):
    torch.manual_seed(1)
    config = BackboneConfig(
        name=case.partition(" ")[0], embedding_dim=24, activation_checkpointing=checkpointed, **CASES[case]
    )
    return build_backbone(config, image_size=32)


def images(count):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1


def trained(module):
    """Gradients of two batches, added up, and everything the module remembers of them."""
    torch.manual_seed(7)
    outputs = [module(images(count)) for count in (5, 3)]
    for output in outputs:
        output.square().sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return outputs, gradients, dict(module.named_buffers()), torch.get_rng_state()


@pytest.mark.parametrize("case", CASES)
def test_outputs_gradients_statistics_and_random_state_are_those_without(case):
    """The second pass once counted every batch twice in the running statistics, which only evaluation shows."""
    ours, theirs = (trained(built(case, checkpointed=flag)) for flag in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert torch.equal(ours[1][name], gradient), name
    for name, buffer in theirs[2].items():
        assert torch.equal(ours[2][name], buffer), name
    assert torch.equal(ours[3], theirs[3])


def saved_bytes(module):
    """Bytes that autograd keeps between forward and backward, parameters aside; shared memory once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # holds it: addresses must not be reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(images(8))
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(("case", "at_most"), [("mobilefacenet", 0.35), ("iresnet18", 0.5), ("vit_t", 0.25)])
def test_less_is_kept(case, at_most):
    with_it, without = (saved_bytes(built(case, checkpointed=flag)) for flag in (True, False))
    assert with_it < at_most * without


def test_evaluation_and_export_are_untouched():
    module = built("mobilefacenet", checkpointed=True).eval()
    program = torch.export.export(module, (images(2),))
    assert not any("checkpoint" in str(node.target) for node in program.graph.nodes)
    norm = next(layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked is not None


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # the compiler's own
def test_under_the_compiler_gradients_and_statistics_are_those_without():
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        small = {"channels": (8, 8, 8, 8), "image_size": 32}
        module = IResNet((1, 1, 1, 1), 24, **small, activation_checkpointing=checkpointed).double()
        network = torch.compile(module, backend="aot_eager") if checkpointed else module
        network(images(4).double()).square().sum().backward()
        results.append([*module.buffers(), *(p.grad for p in module.parameters() if p.requires_grad)])
    for found, wanted in zip(*results, strict=True):
        assert (found.double() - wanted.double()).norm() <= 1e-8 * (1 + wanted.double().norm())
