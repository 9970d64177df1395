"""Trained networks as files that other programs load: ONNX Runtime, OpenCV's FaceRecognizerSF, InsightFace, torch."""

from trainer.export.errors import ExportError
from trainer.export.exporting import Exported, Request, export_model
from trainer.export.targets import TARGETS

__all__ = ["TARGETS", "ExportError", "Exported", "Request", "export_model"]
