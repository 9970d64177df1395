"""What holds for every backbone in the registry: its output, its size, its normalisation, its pretrained weights."""

import pytest
import torch
from torch import nn

from trainer.backbones import (
    BACKBONE_NAMES,
    BackboneConfig,
    SyncBatchNorm,
    build_backbone,
    convert_normalization,
    load_pretrained,
)
from trainer.checkpoint import read_weights
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

FAMILIES = ["mobilefacenet", "iresnet18", "vit_t"]
# Parameters at image side 112 and 512 features; those of arcface_torch's networks at commit 7fadd42, whose state dicts
# test_backbones.py and test_vit.py pin tensor by tensor.
PARAMETERS = {
    "mobilefacenet": 2_059_520,
    "iresnet18": 24_025_600,
    "iresnet34": 34_139_328,
    "iresnet50": 43_590_848,
    "iresnet100": 65_156_160,
    "vit_t": 19_137_792,
    "vit_s": 76_023_296,
    "vit_b": 113_833_472,
}


def small(name, **options):
    torch.manual_seed(1)
    if name.startswith("vit"):
        options = {"patch_size": 16, **options}
    return build_backbone(BackboneConfig(name=name, **{"embedding_dim": 24, **options}), image_size=32)


def images(count):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_size_is_the_published_one(name):
    with torch.device("meta"):
        module = build_backbone(BackboneConfig(name=name))
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_embeddings_are_float32_not_normalised_and_repeatable(name):
    module = small(name)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        module(images(6))  # sets the running statistics, which keep deep networks in range
        module.eval()
        embeddings = module(images(3))
        assert torch.equal(embeddings, module(images(3)))
    assert embeddings.shape == (3, 24)
    assert embeddings.dtype == torch.float32
    norms = embeddings.norm(dim=1)
    assert ((norms - 1).abs() > 1e-3).all()
    assert norms.max() > 1.0001 * norms.min()


@pytest.mark.parametrize("name", FAMILIES)
def test_exported_graph_takes_any_batch_size(name):
    module = small(name).eval()
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (images(2),), dynamic_shapes=shapes).module()
    for count in (1, 5):
        torch.testing.assert_close(program(images(count)), module(images(count)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("normalization", ["batch", "sync_batch", "group"])
def test_normalisation_is_exchanged_and_the_rest_kept(name, normalization):
    plain, module = small(name), small(name, normalization=normalization)
    counts = [
        sum(isinstance(layer, kind) for layer in module.modules())
        for kind in (nn.BatchNorm1d | nn.BatchNorm2d, SyncBatchNorm, nn.GroupNorm)
    ]
    kinds = ["batch", "sync_batch", "group"]
    assert [count > 0 for count in counts] == [kind == normalization for kind in kinds]
    expected = dict(plain.named_parameters())
    for key, parameter in module.named_parameters():
        assert torch.equal(parameter, expected[key])
        assert parameter.requires_grad == expected[key].requires_grad
    assert module.state_dict().keys() == (expected.keys() if normalization == "group" else plain.state_dict().keys())


@pytest.mark.parametrize("name", FAMILIES)
def test_without_process_group_synchronised_is_plain_and_weights_move_between_them(name):
    plain, synchronised = small(name), small(name, normalization="sync_batch")
    assert torch.equal(plain(images(5)), synchronised(images(5)))
    assert list(plain.state_dict()) == list(synchronised.state_dict())
    plain.load_state_dict(synchronised.state_dict())
    assert torch.equal(plain.eval()(images(5)), synchronised.eval()(images(5)))


@pytest.mark.parametrize("name", FAMILIES)
def test_group_normalised_embeddings_do_not_depend_on_the_rest_of_the_batch(name):
    module = small(name, normalization="group").train()
    together = module(images(5))
    for i in range(5):
        torch.testing.assert_close(module(images(5)[i : i + 1]), together[i : i + 1], rtol=1e-3, atol=1e-4)
    assert module(images(0)).shape == (0, 24)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_loss_falls(name, normalization):
    module = small(name, normalization=normalization, embedding_dim=16)
    classifier = nn.Linear(16, 4)
    transformer = name.startswith("vit")
    parameters = [*module.parameters(), *classifier.parameters()]
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(parameters, lr=3e-4) if transformer else torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
    )
    identities = torch.arange(12) % 4
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(classifier(module(images(12))), identities)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_converter_leaves_what_it_does_not_know():
    network = nn.Sequential(nn.BatchNorm2d(24, affine=False), nn.Sequential(nn.BatchNorm1d(32), nn.LayerNorm(3)))
    convert_normalization(network, "group")
    assert [type(layer) for layer in network[1]] == [nn.GroupNorm, nn.LayerNorm]
    assert (network[0].num_groups, network[0].affine, network[1][0].num_groups) == (1, False, 1)
    wide = nn.Sequential(nn.BatchNorm2d(64))
    convert_normalization(wide, "group")
    assert wide[0].num_groups == 4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("normalization", ["batch", "sync_batch", "group"])
def test_weights_come_back_from_a_file(tmp_path, name, normalization):
    source = small(name, normalization=normalization)
    torch.save({f"module.{key}": tensor for key, tensor in source.state_dict().items()}, tmp_path / "w.pt")
    torch.manual_seed(9)
    loaded = small(name, normalization=normalization, pretrained=tmp_path / "w.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def refusal(tmp_path, found, wanted):
    torch.save(found.state_dict(), tmp_path / "w.pt")
    before = [tensor.clone() for tensor in wanted.state_dict().values()]
    with pytest.raises(ConfigError) as caught:
        load_pretrained(wanted, tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(before, wanted.state_dict().values(), strict=True))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    return message


@pytest.mark.parametrize(("found", "wanted"), [("iresnet18", "mobilefacenet"), ("vit_t", "iresnet18"),
                                               ("mobilefacenet", "vit_t"), ("iresnet18", "iresnet34")])  # fmt: skip
def test_weights_of_another_backbone_are_named(tmp_path, found, wanted):
    message = refusal(tmp_path, small(found), small(wanted))
    assert f'backbone.name = "{found}"' in message
    assert " more " in message


def test_other_normalisation_length_and_patches_are_named(tmp_path):
    plain = small("mobilefacenet")
    message = refusal(tmp_path, plain, small("mobilefacenet", normalization="group"))
    assert 'set backbone.normalization to "batch" or "sync_batch"' in message
    assert "running_mean" in message
    message = refusal(tmp_path, small("mobilefacenet", normalization="group"), plain)
    assert 'set backbone.normalization to "group"' in message
    assert "backbone.embedding_dim = 7" in refusal(tmp_path, small("mobilefacenet", embedding_dim=7), plain)
    message = refusal(tmp_path, small("vit_t", patch_size=8), small("vit_t"))
    assert "pos_embed is [1, 16, 256] but the model wants [1, 4, 256]" in message
    assert "patch_size" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("folder", "holds no complete checkpoint"),
        ("{", "damaged"),
        ('{"version": 0}', "damaged"),
    ],
)
def test_sources_without_weights_give_one_line(tmp_path, content, message):
    source = tmp_path / "run"
    if content is not None:
        source.mkdir()
        if content != "folder":
            (source / "checkpoint.json").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_weights(source)
    assert "\n" not in str(caught.value)
