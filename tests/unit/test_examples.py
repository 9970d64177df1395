"""The configurations in examples/: all of them are valid, and the SFace presets carry the paper's settings."""

from pathlib import Path

import pytest

from partial_fc import SFace
from trainer.config import load_config
from trainer.schedule import learning_rate_schedule

pytestmark = pytest.mark.unit

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
# Of the paper and the authors' commands: a, b, network, global batch, images, milestones, epochs.
PAPER = {
    "sface_casia_webface_r50": (0.87, 1.20, "iresnet50", 256, 490_623, (100_000, 140_000, 160_000), 100),
    "sface_vggface2_r50": (0.88, 1.25, "iresnet50", 512, 3_137_807, (100_000, 160_000, 220_000), 30),
    "sface_ms1mv2_r100": (0.90, 1.20, "iresnet100", 512, 5_822_653, (100_000, 160_000, 220_000), 30),
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_valid_configuration(path: Path) -> None:
    config = load_config(path)
    assert config.run.output.name == path.stem
    assert f"examples/{path.name}" in path.read_text() or path.stem == "demo", "it says how it is started"


def test_all_presets_are_there() -> None:
    assert PAPER.keys() <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("name", PAPER)
def test_a_preset_is_the_papers_training(name: str) -> None:
    a, b, network, global_batch, images, milestones, epochs = PAPER[name]
    config = load_config(next(path for path in EXAMPLES if path.stem == name))
    assert config.head.build() == SFace(scale=64.0, slope=80.0, a=a, b=b)
    assert (config.backbone.name, config.backbone.embedding_dim) == (network, 512)
    optimizer = config.optimizer
    assert (optimizer.kind, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
    assert (optimizer.center_lr_share, optimizer.decay_of_centers) == (1.0, 5e-4)
    assert config.run.world_size is not None
    assert config.data.batch_size * config.run.world_size == global_batch
    steps_per_epoch = images // global_batch
    total = config.train.total_steps(steps_per_epoch)
    assert total == epochs * steps_per_epoch
    rate = learning_rate_schedule(
        config.schedule, base=optimizer.lr, total_steps=total, steps_per_epoch=steps_per_epoch
    )
    assert rate(0) == 0.1, "no warm-up"
    for passed, milestone in enumerate(milestones, start=1):
        if milestone < total:
            assert rate(milestone - 1) == pytest.approx(0.1 * 0.1 ** (passed - 1))
            assert rate(milestone) == pytest.approx(0.1 * 0.1**passed)
