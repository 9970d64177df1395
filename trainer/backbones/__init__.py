"""Networks that map face images to embeddings, compatible with InsightFace's arcface_torch weights."""

from trainer.backbones.normalization import convert_normalization
from trainer.backbones.pretrained import load_pretrained, read_state_dict
from trainer.backbones.registry import BACKBONE_NAMES, BackboneConfig, BackboneName, build_backbone
from trainer.backbones.sync_batch_norm import SyncBatchNorm

__all__ = [
    "BACKBONE_NAMES",
    "BackboneConfig",
    "BackboneName",
    "SyncBatchNorm",
    "build_backbone",
    "convert_normalization",
    "load_pretrained",
    "read_state_dict",
]
