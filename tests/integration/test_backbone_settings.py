"""Backbone settings as a user gives them: another normalisation, checkpointing, a run to start from."""

from pathlib import Path

import pytest
import torch
from commands import pfc, run_warm, torchrun
from small_faces import make_small_faces, write_run

from trainer.backbones import SyncBatchNorm
from trainer.checkpoint import load_backbone, read_weights

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
AT_ONCE = ["--set", "schedule.warmup=0"]


def test_a_run_starts_from_another_runs_weights(tmp_path: Path) -> None:
    faces = make_small_faces(tmp_path / "faces")
    first = write_run(tmp_path / "first.toml", output=tmp_path / "first", faces=faces, steps=3)
    settings = [
        *AT_ONCE,
        "--set",
        "backbone.normalization=sync_batch",
        "--set",
        "backbone.activation_checkpointing=true",
    ]
    trained = run_warm(torchrun(2, "train", first, *settings), cwd=tmp_path)
    assert trained.code == 0, trained.err
    source = load_backbone(tmp_path / "first", CPU).module
    assert any(isinstance(layer, SyncBatchNorm) for layer in source.modules())
    counted = [int(value) for name, value in source.named_buffers() if name.endswith("num_batches_tracked")]
    assert set(counted) == {3}

    # A second run that hardly moves, from the first one's folder: plain batch norm takes over synchronised weights.
    second = write_run(tmp_path / "second.toml", output=tmp_path / "second", faces=faces, steps=1)
    still = [*AT_ONCE, "--set", "optimizer.lr=1e-12", "--set", "optimizer.weight_decay=0.0"]
    started = ["--set", f"backbone.pretrained={tmp_path / 'first'}"]
    trained = run_warm(pfc("train", second, *still, *started), cwd=tmp_path)
    assert trained.code == 0, trained.err
    moved = load_backbone(tmp_path / "second", CPU).module
    for (name, ours), theirs in zip(moved.named_parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6, msg=name)
    newest = tmp_path / "first" / "checkpoints" / "step_00000003"
    assert read_weights(newest).keys() == source.state_dict().keys()

    third = write_run(tmp_path / "third.toml", output=tmp_path / "third", faces=faces, steps=1)
    refused = run_warm(pfc("train", third, *AT_ONCE, *started, "--set", "backbone.name=iresnet18"), cwd=tmp_path)
    assert refused.code == 2
    assert 'backbone.name = "mobilefacenet"' in refused.err
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["backbone.drop_path=0.1"], "drop_path = 0.1 does not apply to mobilefacenet"),
        (["backbone.name=vit_t"], "try backbone.patch_size = 8"),
        (["backbone.normalization=sync"], "backbone.normalization"),
        (["backbone.activation_checkpoint=true"], "nearest known key is 'backbone.activation_checkpointing'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, settings: list[str], message: str) -> None:
    faces = make_small_faces(tmp_path / "faces", identities=3, images_per_identity=4)
    config = write_run(tmp_path / "run.toml", output=tmp_path / "run", faces=faces, steps=1)
    refused = run_warm(
        pfc("train", config, *AT_ONCE, *(part for text in settings for part in ("--set", text))), cwd=tmp_path
    )
    assert refused.code == 2
    assert message in refused.err
    assert not (tmp_path / "run").exists()
