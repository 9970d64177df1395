"""Backbones: names and shapes of InsightFace's published weights, mathematics, precision, loading."""

import hashlib
import pickle
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gang import leave_group
from pydantic import ValidationError
from torch import nn

from trainer.backbones import BackboneConfig, build_backbone, load_pretrained
from trainer.backbones.channel_prelu import ChannelPReLU
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

# Tensors of the state dict of arcface_torch's own networks (512 features, image side 112) and the sha256 of their
# "name AxBxC" lines, in order.
REFERENCE = {
    "mobilefacenet": (333, "4b0f6d820619cf3d97993334db405ced3edb4d9daf7ca535bfacf8562c920b1d"),
    "iresnet18": (187, "b43157144ba624beaa380155675a1d0d5e2c79d904d893f0f6eeae8f866cd450"),
    "iresnet34": (331, "09a24d2cb5d748fcb7f9faefbcf16c566f29e37d039f1e7b00303ef8319d560f"),
    "iresnet50": (475, "5091cc2cacd4774ed568834b78a1ef43555379de2079d787f53483f161853cb2"),
    "iresnet100": (925, "f18453a99d354e87e09332709b5be4666b08c035547a11003d8fb819c1ebd5e5"),
}


def small(name="mobilefacenet", **options):
    torch.manual_seed(1)
    return build_backbone(BackboneConfig(name=name, embedding_dim=24, **options), image_size=32)


def images(count, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("name", REFERENCE)
def test_state_dict_is_that_of_the_published_weights(name):
    with torch.device("meta"):
        state = build_backbone(BackboneConfig(name=name)).state_dict()
    lines = "".join(f"{key} {'x'.join(map(str, tensor.shape))}\n" for key, tensor in state.items())
    assert (len(state), hashlib.sha256(lines.encode()).hexdigest()) == REFERENCE[name]


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
@pytest.mark.parametrize("size", [32, 48])
def test_embeds_any_multiple_of_sixteen(name, size):
    module = build_backbone(BackboneConfig(name=name, embedding_dim=7), image_size=size)
    embeddings = module(images(3, size))
    assert embeddings.shape == (3, 7)
    assert embeddings.dtype == torch.float32


@pytest.mark.parametrize("size", [0, 16, 40, -32])
def test_other_image_sizes_are_refused(size):
    with pytest.raises(ConfigError, match="multiple of 16"):
        build_backbone(BackboneConfig(), image_size=size)


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_trainable_weight_gets_a_gradient_in_its_own_layout(name, precision):
    module = small(name, precision=precision)
    module(images(5)).square().sum().backward()
    for key, parameter in module.named_parameters():
        if not parameter.requires_grad:
            assert key == "features.weight"
            continue
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.stride() == parameter.stride(), key


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_bfloat16_is_near_float32_and_returns_float32(name):
    exact = small(name).train()
    rounded = small(name, precision="bfloat16").train()
    rounded.load_state_dict(exact.state_dict())
    a, b = exact(images(9)), rounded(images(9))
    assert b.dtype == torch.float32
    assert 0 < (a - b).norm() / a.norm() < 0.2


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_dropout_acts_in_training_only_and_not_at_zero(name):
    torch.manual_seed(3)
    without, dropping = small(name), small(name, dropout=0.5)
    dropping.load_state_dict(without.state_dict())
    assert not torch.equal(dropping(images(5)), dropping(images(5)))
    assert torch.equal(without(images(5)), without(images(5)))
    dropping.load_state_dict(without.state_dict())
    assert torch.equal(dropping.eval()(images(5)), without.eval()(images(5)))


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_fast_path_equals_plain_torch(name):
    """Channels-last, the vectorised PReLU and in-place additions change rounding only: checked in float64."""
    torch.manual_seed(4)
    fast, plain = small(name).double(), small(name).double()
    with torch.no_grad():
        for layer in fast.modules():
            if isinstance(layer, ChannelPReLU):
                layer.weight.uniform_(-0.3, 0.6)
    plain.load_state_dict(fast.state_dict())
    for layer in plain.modules():
        if isinstance(layer, ChannelPReLU):
            layer.__class__ = nn.PReLU
    batch, direction = images(5).double(), torch.randn(5, 24).double()
    outputs = []
    for module in (fast, plain):
        x = batch.clone().requires_grad_()
        # float() at the end of the network limits the comparison of values, not of gradients.
        y = module(x)
        y.backward(direction.to(y.dtype))
        outputs.append([y.double(), x.grad] + [p.grad for p in module.parameters() if p.grad is not None])
    scale = max(gradient.norm() for gradient in outputs[1][2:])
    for a, b in zip(*outputs, strict=True):
        assert (a - b).norm() <= 1e-6 * max(b.norm(), scale * 1e-3)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (9, 4, 13, 17), (1, 1, 1, 1)])
def test_channel_prelu_equals_torch_on_zeros_and_signs(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5)).contiguous(memory_format=torch.channels_last)
    x[:, :, ::2] = 0.0
    x[:, :, :, ::3] *= -0.0
    ours, theirs = ChannelPReLU(shape[1]), nn.PReLU(shape[1])
    with torch.no_grad():
        ours.weight.uniform_(-1, 1)
    theirs.load_state_dict(ours.state_dict())
    gradients = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        y.backward(torch.cos(torch.arange(y.numel()).float()).view(y.shape))
        gradients.append((y.detach(), leaf.grad, layer.weight.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])
    torch.testing.assert_close(gradients[0][2], gradients[1][2], rtol=1e-5, atol=1e-5)


def test_distributed_data_parallel_sees_ordinary_gradients(tmp_path):
    """Channels-last activations once gave weight gradients in another layout, which DDP copies with a warning."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        module = nn.parallel.DistributedDataParallel(small())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            module(images(5)).sum().backward()
    finally:
        leave_group()  # at once, gloo's threads and this one could wait for each other for ever


def test_export_graph_is_free_of_layout_and_autocast():
    program = torch.export.export(small().eval(), (images(2),))
    called = " ".join(str(node.target) for node in program.graph.nodes)
    assert "prelu" in called
    for unwanted in ("contiguous", "autocast", "threshold_backward"):
        assert unwanted not in called


@pytest.mark.parametrize("prefix", ["", "module."])
def test_pretrained_weights_are_loaded_strictly(tmp_path, prefix):
    source = small()
    torch.save({prefix + key: tensor for key, tensor in source.state_dict().items()}, tmp_path / "w.pt")
    torch.manual_seed(9)
    config = BackboneConfig(embedding_dim=24, pretrained=tmp_path / "w.pt")
    loaded = build_backbone(config, image_size=32)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True))


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def bad_file(kind, path):
    state = small().state_dict()
    first = next(iter(state))
    if kind == "missing tensor":
        del state[first]
    elif kind == "misshapen tensor":
        state[first] = torch.zeros(3, 5)
    elif kind == "unknown tensor":
        state["extra"] = torch.zeros(2)
    elif kind == "diverged":
        state[first].view(-1)[7] = float("nan")
    elif kind == "nested":
        state = {"backbone": state}
    elif kind == "empty":
        state = {}
    if kind == "no torch file":
        path.write_bytes(b"not a zip file")
    elif kind == "cut short":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "code":
        path.write_bytes(pickle.dumps(Malicious()))
    elif kind != "no file":
        torch.save(state, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no file", "no such file"),
        ("no torch file", "not a file of plain tensors"),
        ("cut short", "not a file of plain tensors"),
        ("code", "not a file of plain tensors"),
        ("nested", "a dictionary (backbone)"),
        ("empty", "a dictionary (empty)"),
        ("missing tensor", "layers.0.layers.0.weight [128, 3, 3, 3] is missing"),
        ("misshapen tensor", "is [3, 5] but the model wants [128, 3, 3, 3]"),
        ("unknown tensor", "extra [2] is unknown"),
        ("diverged", "layers.0.layers.0.weight is not finite: the run they come from has diverged"),
    ],
)
def test_unusable_weights_give_one_line_and_change_nothing(tmp_path, monkeypatch, kind, message):
    monkeypatch.chdir(tmp_path)
    bad_file(kind, tmp_path / "w.pt")
    module = small()
    before = [tensor.clone() for tensor in module.state_dict().values()]
    with pytest.raises(ConfigError) as caught:
        load_pretrained(module, tmp_path / "w.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "w.pt") in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, module.state_dict().values(), strict=True))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "fields", [{"name": "resnet"}, {"embedding_dim": 0}, {"dropout": 1.0}, {"precision": "fp16"}, {"nmae": "x"}]
)
def test_configuration_is_checked(fields):
    with pytest.raises(ValidationError):
        BackboneConfig(**fields)
