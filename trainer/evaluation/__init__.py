"""Verification of a model on pairs of faces."""

from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.store import StoredResult, load_results, save_result
from trainer.evaluation.verification import VerificationResult, verify

__all__ = [
    "EvaluationConfig",
    "Evaluator",
    "StoredResult",
    "VerificationResult",
    "load_results",
    "save_result",
    "verify",
]
