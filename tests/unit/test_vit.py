"""Vision transformers: InsightFace's shapes and cost, masking, stochastic depth."""

import hashlib

import pytest
import torch
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trainer.backbones import BackboneConfig, build_backbone
from trainer.backbones.vit import TransformerBlock, TransformerSize, VisionTransformer
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

# State dicts of arcface_torch's own VisionTransformer at commit 7fadd42, image side 112, patch 9, 512 features: number
# of tensors, sha256 of their "name AxBxC" lines, parameters. On the same weights and images its outputs differ from
# these networks' by 1e-6 (evaluation) and 1e-5 (batch statistics of 3 images) of their norm.
REFERENCE = {
    "vit_t": (150, "e8f9554b8f899a4e6fd05a3dcec8e33127e8dee7779aec38ae90cfe1d52f1711", 19_137_792),
    "vit_s": (150, "58e6885c7130048a9ca8afe31b2082b570e143fe9526b59b9a5c760a53c9ed58", 76_023_296),
    "vit_b": (282, "33dbb1b29aecfa217c885a9a42d7be308405790e8d0d61798d8018bbc71efc80", 113_833_472),
}
# Multiply-adds of one image, 1e9: the column "FLOPs" of arcface_torch's README, section "ViT For Face Recognition".
PUBLISHED_GFLOPS = {"vit_t": 1.5, "vit_s": 5.7, "vit_b": 11.4, "iresnet18": 2.6, "iresnet50": 6.3, "iresnet100": 12.1}


def tiny(**options):
    torch.manual_seed(1)
    return VisionTransformer(TransformerSize(width=16, depth=3), 5, image_size=32, patch_size=8, **options)


def images(count, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("name", REFERENCE)
def test_state_dict_is_that_of_arcface_torch(name):
    with torch.device("meta"):
        module = build_backbone(BackboneConfig(name=name))
    state = module.state_dict()
    lines = "".join(f"{key} {'x'.join(map(str, tensor.shape))}\n" for key, tensor in state.items())
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert (len(state), hashlib.sha256(lines.encode()).hexdigest(), parameters) == REFERENCE[name]


@pytest.mark.parametrize("name", PUBLISHED_GFLOPS)
def test_cost_is_the_published_one(name):
    with torch.device("meta"):
        module = build_backbone(BackboneConfig(name=name)).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            module(torch.empty(1, 3, 112, 112))
    assert round(counter.get_total_flops() / 2e9, 1) == PUBLISHED_GFLOPS[name]


def test_last_pixels_of_112_are_not_seen():
    torch.manual_seed(0)
    module = VisionTransformer(TransformerSize(width=16, depth=1), 5).eval()
    batch = images(2, 112)
    changed = batch.clone()
    changed[..., 108:] = 1.0
    changed[..., 108:, :] = 1.0
    assert torch.equal(module(batch), module(changed))
    changed[..., 107] = 1.0
    assert not torch.equal(module(batch), module(changed))


@pytest.mark.parametrize(
    ("size", "options", "advice"),
    [(32, {}, "backbone.patch_size = 8"), (64, {}, "patch_size = 8"), (112, {"patch_size": 10}, "patch_size = 8"),
     (16, {"patch_size": 16}, "patch_size = 8"), (37, {}, "another image size")],
)  # fmt: skip
def test_images_that_patches_do_not_divide_are_refused(size, options, advice):
    with pytest.raises(ConfigError, match="cuts images into patches") as caught:
        build_backbone(BackboneConfig(name="vit_t", **options), image_size=size)
    assert advice in str(caught.value)


@pytest.mark.parametrize(("size", "options"), [(112, {}), (108, {}), (48, {"patch_size": 12}), (32, {"patch_size": 8})])
def test_images_that_patches_divide_are_embedded(size, options):
    module = build_backbone(BackboneConfig(name="vit_t", embedding_dim=7, **options), image_size=size)
    assert module(images(2, size)).shape == (2, 7)


@pytest.mark.parametrize("key", ["drop_path", "mask_ratio", "patch_size"])
def test_keys_of_transformers_are_refused_elsewhere(key):
    value = 8 if key == "patch_size" else 0.1
    with pytest.raises(ValidationError, match=f"{key} = {value} does not apply to iresnet18"):
        BackboneConfig(name="iresnet18", **{key: value})
    assert getattr(BackboneConfig(name="vit_s", **{key: value}), key) == value


def test_stochastic_depth_keeps_the_mean_and_grows_with_depth():
    torch.manual_seed(0)
    block = TransformerBlock(16, drop_path=0.3)
    branch = torch.ones(20_000, 2, 1)
    kept = block._kept(branch)
    assert sorted(set(kept[:, 0, 0].tolist())) == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(kept[:, 0], kept[:, 1])  # a sample skips the whole branch
    assert kept.mean() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(block.eval()._kept(branch), branch)
    assert [block.drop_path for block in tiny(drop_path=0.4).blocks] == [0.0, 0.2, 0.4]


@pytest.mark.parametrize("options", [{"drop_path": 0.5}, {"mask_ratio": 0.5}, {"dropout": 0.5}])
def test_randomness_comes_from_torchs_generator_in_training_only(options):
    module, batch = tiny(**options), images(6)
    state = torch.get_rng_state()
    first, second = module(batch), module(batch)
    torch.set_rng_state(state)
    assert torch.equal(first, module(batch))
    assert not torch.equal(first, second)
    assert torch.equal(module.eval()(batch), module(batch))


def test_masking_hides_tokens_from_the_blocks_and_fills_their_places():
    module = tiny(mask_ratio=0.25)
    seen = []
    module.blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    flat = []
    module.feature.register_forward_hook(lambda _, inputs, __: flat.append(inputs[0].detach()))
    module(images(5)).square().sum().backward()
    assert seen == [(5, 12, 16)]
    hidden = (flat[0].unflatten(1, (16, 16)) == module.mask_token[0]).all(2)
    assert hidden.sum(1).tolist() == [4] * 5
    assert len({tuple(row.tolist()) for row in hidden}) > 1  # each sample hides its own
    assert module.mask_token.grad is not None
    module.eval()(images(5))
    assert seen[1] == (5, 16, 16)
    assert not tiny().mask_token.requires_grad  # DistributedDataParallel would wait for its gradient


def test_empty_batches_pass():
    module = tiny(mask_ratio=0.25, drop_path=0.1).eval()
    assert module(images(0)).shape == (0, 5)
