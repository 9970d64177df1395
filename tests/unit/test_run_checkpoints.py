"""Which verification counts when checkpoints are compared."""

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.checkpoint import Position, Score
from trainer.config import config_from
from trainer.evaluation import VerificationResult
from trainer.evaluation.verification import verify
from trainer.run_checkpoints import RunCheckpoints
from trainer.world import World

pytestmark = pytest.mark.unit


def result(name: str, wrong: int) -> VerificationResult:
    """20 pairs, of which ``wrong`` different ones look the same."""
    same = np.tile([True, False], 10)
    scores = np.where(same, 0.8, 0.1)
    scores[1 : 2 * wrong : 2] = 0.9
    return verify(name, scores, same)


@pytest.mark.parametrize("best_by", ["first", "second", "mean"])
def test_a_verification_that_was_interrupted_has_no_score(tmp_path: Path, best_by: str) -> None:
    """A run asked to stop leaves out the pair sets that are left: what is there is not what others are compared by."""
    config = config_from(
        {
            "run": {"output": str(tmp_path / "run")},
            "data": {"records": str(tmp_path)},
            "train": {"steps": 5},
            "evaluation": {"pairs": [str(tmp_path / "first.bin"), str(tmp_path / "second.bin")]},
            "checkpoint": {"best_by": best_by},
        },
        "test",
    )
    checkpoints = RunCheckpoints(
        config=config,
        world=World(0, 1, 0, torch.device("cpu")),
        run_folder=config.run.output,
        trained=None,  # nothing is saved here, and nothing told
        reporting=None,
        pair_names=["first", "second"],
        position=Position(0, 0, {}),
    )
    first, second = result("first", 1), result("second", 4)
    assert first.accuracy_mean > second.accuracy_mean
    expected = {"first": first.accuracy_mean, "second": second.accuracy_mean}
    expected["mean"] = (first.accuracy_mean + second.accuracy_mean) / 2
    assert checkpoints.score_of([first, second]) == Score(best_by, expected[best_by])
    assert checkpoints.score_of([first]) is None
    assert checkpoints.score_of([]) is None
