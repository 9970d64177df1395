"""What only hardware can show: the same code on CUDA gives what it gives on the CPU. Needs one GPU."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import pfc, run
from face_geometry import COLLAPSE, STEADY, WEAK, Faces, Phase
from gang import run_gang
from PIL import Image
from small_faces import make_small_faces, write_run
from split_norm import LAYER_LIMITS, LAYERS, layer_errors_on_cuda

from data_pipeline import Augmentation, RecordReader, RecordWriter, make_loader
from data_pipeline.decode_image import decode_image
from partial_fc import CenterSGD, CosFace, PartialFC, SFace
from partial_fc.center_module import CenterDtype, CenterMemory
from partial_fc.margins import CombinedMargin
from trainer.backbones import BackboneConfig, build_backbone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def test_head_and_optimizer_on_cuda_equal_the_cpu() -> None:
    torch.manual_seed(0)
    embeddings, identities = torch.randn(33, 64), torch.randint(1031, (33,))
    results = []
    for device in ("cpu", "cuda"):
        head = PartialFC(1031, 64, device=device, seed=2, tile_classes=100)
        optimizer = CenterSGD(head, lr=0.1)
        for _ in range(5):
            x = embeddings.to(device, copy=True).requires_grad_()
            loss = head(x, identities.to(device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append((loss.item(), x.grad.cpu(), head.centers.detach().cpu()))
    (cpu_loss, cpu_gradient, cpu_centers), (gpu_loss, gpu_gradient, gpu_centers) = results
    assert gpu_loss == pytest.approx(cpu_loss, rel=1e-4)
    torch.testing.assert_close(gpu_gradient, cpu_gradient, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gpu_centers, cpu_centers, rtol=1e-3, atol=1e-5)


def take_eight_steps(head: PartialFC, faces: Faces, phase: Phase) -> None:
    """From the faces' own centers on."""
    head.load_centers(faces.centers.to(head.device))
    optimizer = CenterSGD(head, lr=1e-3 if phase is COLLAPSE else 0.1)
    for _ in range(8):
        x, identities = faces.batch(faces.centers, 31)
        head(x.to(head.device).requires_grad_(), identities.to(head.device)).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("phase", [STEADY, WEAK, COLLAPSE], ids=lambda phase: phase.name)
def test_screened_and_dense_steps_on_cuda_equal_the_cpu(phase: Phase) -> None:
    """2,203 rows leave a last tile of a few: the int8 product on CUDA wants more."""
    results, modes = [], []
    for device in ("cpu", "cuda"):
        faces = Faces(phase, 2203, 290, seed=1)
        head = PartialFC(2203, 290, device=device)
        take_eight_steps(head, faces, phase)
        assert head.stats is not None
        modes.append(head.stats.mode)
        results.append(head.centers.detach().cpu())
    assert modes == ["dense" if phase is COLLAPSE else "screened"] * 2
    moved = (results[0] - Faces(phase, 2203, 290, seed=1).centers).norm()
    assert (results[0] - results[1]).norm() < 1e-3 * moved


@pytest.mark.parametrize("center_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", [SFace(), CosFace()], ids=["sface", "cosface"])
@pytest.mark.parametrize("phase", [STEADY, COLLAPSE], ids=lambda phase: phase.name)
def test_centers_in_host_memory_beside_a_gpu(
    phase: Phase, loss: SFace | CombinedMargin, center_dtype: CenterDtype
) -> None:
    """Pinned, and after eight steps what centers on the GPU and on the CPU are, but for the order of float32 sums."""
    results = []
    memory: CenterMemory
    for device, memory in (("cpu", "device"), ("cuda", "device"), ("cuda", "host")):
        faces = Faces(phase, 2203, 290, seed=1)
        head = PartialFC(2203, 290, loss, device=device, center_dtype=center_dtype, center_memory=memory)
        take_eight_steps(head, faces, phase)
        assert head.stored_centers.is_cuda == (device == "cuda" and memory == "device")
        assert head.stored_centers.is_pinned() == (memory == "host")
        results.append(head.read_centers(0, 2203).cpu())
    moved = (results[0] - Faces(phase, 2203, 290, seed=1).centers).norm()
    assert (results[1] - results[2]).norm() < 1e-3 * moved
    assert (results[0] - results[2]).norm() < (1e-3 if center_dtype == "float32" else 1e-2) * moved


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_backbone_embeds_as_on_the_cpu(precision: str) -> None:
    torch.manual_seed(0)
    module = build_backbone(BackboneConfig(name="iresnet18", precision=precision)).eval()
    images = torch.randn(4, 3, 112, 112)
    with torch.inference_mode():
        cpu = module(images)
        gpu = module.cuda()(images.cuda()).cpu()
    cosine = torch.nn.functional.cosine_similarity(cpu, gpu)
    assert cosine.min() > (0.9999 if precision == "float32" else 0.99)


@pytest.mark.parametrize("world_size", [2, 3])
def test_synchronised_norm_on_cuda_equals_the_whole_batch(world_size: int, tmp_path: Path) -> None:
    for errors in run_gang(world_size, layer_errors_on_cuda, folder=tmp_path / "gang"):
        for layer, error in zip(LAYERS, errors, strict=True):
            assert error < LAYER_LIMITS[layer.dtype], layer


@pytest.mark.parametrize("name", ["mobilefacenet", "vit_t"])
def test_activation_checkpointing_on_cuda_changes_memory_only(name: str) -> None:
    results, peaks = [], []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        config = BackboneConfig(name=name, dropout=0.2, activation_checkpointing=checkpointed)
        module = build_backbone(config).cuda()
        torch.cuda.reset_peak_memory_stats()
        module(torch.randn(64, 3, 112, 112, generator=torch.Generator().manual_seed(1)).cuda()).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated())
        results.append([buffer.clone() for buffer in module.buffers()])
    assert peaks[1] < 0.6 * peaks[0]
    for without, having in zip(*results, strict=True):
        torch.testing.assert_close(having, without)


def test_dali_decodes_on_the_gpu_as_on_the_cpu(faces: Path) -> None:
    loaders = [
        make_loader(faces / "train.rec", batch_size=5, decoder="dali", device=device, drop_last=False)
        for device in ("cpu", "cuda")
    ]
    for cpu, gpu in zip(*loaders, strict=True):
        assert gpu.images.device.type == "cuda"
        assert torch.equal(cpu.indices, gpu.indices.cpu())
        assert torch.equal(cpu.identities, gpu.identities.cpu())
        assert np.abs((cpu.images - gpu.images.cpu()).numpy()).mean() < 3 / 127.5  # JPEG decoders round differently


@pytest.mark.parametrize("name", ["flip", "crop", "down_up", "blur", "color", "grayscale", "everything"])
def test_dali_augments_on_the_gpu_as_on_the_cpu(faces: Path, tmp_path: Path, name: str) -> None:
    # PNG: JPEG decoders round differently, and that is not what is asked here.
    with RecordReader(faces / "train.rec") as reader, RecordWriter(tmp_path / "png.rec") as writer:
        for record in reader:
            buffer = io.BytesIO()
            Image.fromarray(decode_image(record.jpeg)).save(buffer, "PNG")
            writer.write(record.identity, buffer.getvalue())
    chosen = ("crop", "down_up", "blur", "color", "grayscale") if name == "everything" else (name,)
    settings: dict[str, Any] = {"decoder": "dali", "augmentation": Augmentation(**dict.fromkeys(chosen, 0.7))}
    loaders = [make_loader(tmp_path / "png.rec", batch_size=5, device=device, **settings) for device in ("cpu", "cuda")]
    for cpu, gpu in zip(*loaders, strict=True):
        assert torch.equal(cpu.indices, gpu.indices.cpu())
        assert (cpu.images - gpu.images.cpu()).abs().max() < 2 / 127.5


def test_an_image_on_the_gpu_hardly_depends_on_its_batch(faces: Path) -> None:
    """nvJPEG decodes few images in another way than many: 3 of 255 levels were measured between 2 and 63 at once."""
    augmentation = Augmentation(crop=0.5, down_up=0.5, blur=0.5, color=0.5)
    settings: dict[str, Any] = {"decoder": "dali", "device": "cuda", "drop_last": False, "augmentation": augmentation}
    whole, small = (make_loader(faces / "train.rec", batch_size=size, **settings) for size in (63, 2))
    apart = next(iter(whole)).images - torch.cat([batch.images for batch in small])
    assert apart.abs().max() < 4.5 / 127.5
    assert apart.abs().mean() < 1 / 127.5


def test_a_run_trains_and_resumes_on_cuda(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=10)
    command = pfc("train", config, "--set", "run.device=cuda")
    finished = run(command, cwd=tmp_path, deadline_seconds=300)
    assert finished.code == 0, finished.err
    assert (output / "checkpoints" / "step_00000010" / "checkpoint.json").exists()
    assert run(command, cwd=tmp_path, deadline_seconds=300).code == 0
