"""Networks that map face images to embeddings, compatible with InsightFace's arcface_torch weights."""

from trainer.backbones.pretrained import load_pretrained, read_state_dict
from trainer.backbones.registry import BACKBONE_NAMES, BackboneConfig, BackboneName, build_backbone

__all__ = [
    "BACKBONE_NAMES",
    "BackboneConfig",
    "BackboneName",
    "build_backbone",
    "load_pretrained",
    "read_state_dict",
]
