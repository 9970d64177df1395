"""Verification during a run: the pairs are split over the ranks, rank 0 scores and stores."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from data_pipeline.pairs import read_pairs
from trainer.agreement import together
from trainer.config import Config
from trainer.engine import share_buffers
from trainer.errors import ConfigError
from trainer.evaluation import EvaluationConfig, Evaluator, VerificationResult, save_result
from trainer.evaluation.image_sources import Decoding
from trainer.world import World

FOLDER = "evaluations"


class RunVerification:
    """The run's pair sets, read once; every rank decodes its part of each as it does the run's images, and embeds it.

    names: of the sets, in order.
    """

    def __init__(self, config: Config, world: World) -> None:
        evaluation = config.evaluation
        self.names = names_of_sets(evaluation)
        self.problem: OSError | None = None  # why the last results could not be stored, on rank 0
        self._folder = config.run.output / FOLDER
        self._world = world
        how = Decoding(
            image_size=config.data.image_size,
            device=world.device,
            decoder=config.data.decoder,
            threads=config.data.threads,
            prefetch=config.data.prefetch,
        )
        self._evaluators = [
            Evaluator(path.stem, read_pairs(path), how, evaluation.batch_size) for path in evaluation.pairs
        ]
        for evaluator in self._evaluators:
            evaluator.prepare(world.rank, world.world_size)

    def has_results(self, step: int) -> bool:
        """Whether this step was evaluated already (asked of rank 0's files by every rank alike)."""
        folder = self._folder / f"step_{step:08d}"
        found = all((folder / f"{evaluator.name}.json").exists() for evaluator in self._evaluators)
        if self._world.world_size == 1:
            return found
        answer = torch.tensor([found], dtype=torch.int32)
        dist.broadcast(answer, 0)
        return bool(answer.item())

    def run(
        self, backbone: nn.Module, step: int, interrupted: Callable[[], bool] = lambda: False
    ) -> list[VerificationResult]:
        """Evaluate and store; results on rank 0, an empty list elsewhere. ``backbone``: the unwrapped module.

        ``interrupted`` is asked between two pair sets, on all ranks alike; True leaves out the rest.
        """
        self.problem = None
        if not self._evaluators:
            return []
        share_buffers(backbone, self._world)
        results: list[VerificationResult] = []
        for number, evaluator in enumerate(self._evaluators):
            if number and interrupted():
                break
            parts = self._gather(evaluator.embed_part(backbone, self._world.rank, self._world.world_size))

            def judge(evaluator: Evaluator = evaluator, parts: list[torch.Tensor] | None = parts) -> None:
                if parts is not None:
                    results.append(evaluator.result(torch.cat(parts)))
                    try:
                        save_result(self._folder, step, results[-1])
                    except OSError as error:  # a full disk takes the curves, not the run
                        self.problem = error

            together(self._world, judge, f"verification on {evaluator.name}")
        return results

    def _gather(self, part: torch.Tensor) -> list[torch.Tensor] | None:
        if self._world.world_size == 1:
            return [part]
        parts: list[torch.Tensor] | None = [part] * self._world.world_size if self._world.is_first else None
        dist.gather_object(part.cpu(), parts, dst=0)
        return parts


def names_of_sets(config: EvaluationConfig) -> list[str]:
    """What the pair sets are called, in order. Raises ConfigError for two of one name."""
    names = [path.stem for path in config.pairs]
    if len(set(names)) != len(names):
        raise ConfigError(f"evaluation.pairs: two files share the name '{max(names, key=names.count)}': rename one")
    return names
