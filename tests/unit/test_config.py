"""The run configuration: what it accepts, and the one line it says of what it does not."""

import dataclasses
from pathlib import Path

import pytest

from data_pipeline import Augmentation
from partial_fc import ArcFace, CombinedMargin, CosFace, SFace
from trainer.augmentation_config import AugmentationConfig
from trainer.config import load_config
from trainer.errors import ConfigError
from trainer.run_folder import claim_run_folder

pytestmark = pytest.mark.unit

MINIMAL = """
[run]
output = "runs/a"
[data]
records = "faces"
[train]
steps = 10
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_minimal_configuration_gets_the_papers_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert (config.head.scale, config.head.slope, config.head.a, config.head.b) == (64.0, 80.0, 0.90, 1.20)
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (0.1, 0.9, 5e-4)
    assert config.data.image_size == 112


def test_the_resolved_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL), ['schedule.kind="multistep"', "schedule.milestones=[5, 8]"])
    assert load_config(write(tmp_path, config.to_toml())) == config


@pytest.mark.parametrize(("written", "value"), [("0", 0), ("1000", 1000), ("0.0", 0.0), ("0.05", 0.05)])
def test_a_limit_of_bad_images_is_a_count_or_a_share(tmp_path: Path, written: str, value: int | float) -> None:
    config = load_config(write(tmp_path, MINIMAL), [f"data.max_bad_images={written}", "data.bad_images=skip"])
    assert (config.data.max_bad_images, type(config.data.max_bad_images)) == (value, type(value))
    assert load_config(write(tmp_path, config.to_toml())) == config


def test_a_path_means_the_same_wherever_the_run_is_started(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL), ["metrics.port=9500", "metrics.targets_file=ranks.json"])
    assert config.metrics.targets_file == Path.cwd() / "ranks.json"


@pytest.mark.parametrize(
    ("override", "value"),
    [("run.seed=7", 7), ("run.device=cpu", "cpu"), ('run.device="cpu"', "cpu")],
)
def test_overrides_are_toml_or_text(tmp_path: Path, override: str, value: object) -> None:
    config = load_config(write(tmp_path, MINIMAL), [override])
    assert getattr(config.run, override.split("=")[0].split(".")[1]) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batchsize=4", "unknown key 'data.batchsize'; the nearest known key is 'data.batch_size'"),
        ("optimiser.lr=1", "unknown key 'optimiser'; the nearest known key is 'optimizer'"),
        ("optimizer.learning_rate=1", "unknown key 'optimizer.learning_rate'; the nearest known key is"),
        ("backbone.name=resnet", "backbone.name: Input should be 'mobilefacenet'"),
        (
            "data.augmentation.blurr=1",
            "unknown key 'data.augmentation.blurr'; the nearest known key is 'data.augmentation.blur'",
        ),
        ("data.augmentation.crop=2", "data.augmentation: augmentation: crop is 2.0: give a probability in [0, 1]"),
        ("data.max_bad_images=1.5", "data.max_bad_images: give a count of images (1000) or a share of them below 1"),
        ("data.max_bad_images=-1", "data.max_bad_images: give a count"),
        ("data.max_bad_images=many", "data.max_bad_images: give a count"),
        ("data.bad_images=ignore", "data.bad_images: Input should be 'raise' or 'skip'"),
        ("data.batch_size=0", "data.batch_size: Input should be greater than or equal to 2, got 0"),
        ("data.order=random", "data.order: Input should be 'global', 'blocks' or 'sequential', got 'random'"),
        ("data.window_blocks=0", "data.window_blocks: Input should be greater than or equal to 1, got 0"),
        ("head.scale=nan", "head.scale"),
        ("head.margin=0.5", "'margin' has no meaning for loss 'sface', which reads a, b, slope"),
        ("train.epochs=3", "train: give exactly one of train.steps and train.epochs"),
        ("schedule.milestones=[3]", "milestones and kind = 'multistep' belong together"),
        (
            "metrics.targets_file=ranks.json",
            "metrics: targets_file lists exporters, and there are none: set metrics.port",
        ),
        ('metrics={port=9500, targets_file="ranks.txt"}', "metrics: Prometheus reads targets_file as JSON by its name"),
        ("run", "write it as table.key=value"),
        ("run.output.x=1", "'output' is a value, not a table"),
    ],
)
def test_bad_values_get_one_clear_line(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_key_missing_file_and_broken_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'data' is missing \(and 1 more\)"):
        load_config(write(tmp_path, '[run]\noutput = "a"\n'))
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(write(tmp_path, "[run\n"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(tmp_path / "binary.toml")


def test_a_folder_stands_for_its_train_rec(tmp_path: Path) -> None:
    (tmp_path / "train.rec").touch()
    config = load_config(write(tmp_path, MINIMAL), [f"data.records=['{tmp_path}', '{tmp_path}/b.rec']"])
    assert config.data.record_files() == [tmp_path / "train.rec", tmp_path / "b.rec"]


def test_examples_are_valid() -> None:
    examples = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
    assert examples
    for path in examples:
        load_config(path)


@pytest.mark.parametrize(
    ("overrides", "loss"),
    [
        ([], SFace()),
        (["head.a=0.8", "head.b=1.1"], SFace(a=0.8, b=1.1)),
        (["head.loss=arcface"], ArcFace(64.0, 0.5)),
        (["head.loss=cosface", "head.margin=0.35", "head.scale=30"], CosFace(30.0, 0.35)),
        (["head.loss=combined", "head.m2=0.3", "head.m3=0.2"], CombinedMargin(64.0, 1.0, 0.3, 0.2)),
    ],
)
def test_losses_by_name(tmp_path: Path, overrides: list[str], loss: object) -> None:
    config = load_config(write(tmp_path, MINIMAL), overrides)
    assert config.head.build() == loss
    assert load_config(write(tmp_path, config.to_toml())) == config


def test_augmentation_has_the_pipelines_keys_and_defaults(tmp_path: Path) -> None:
    assert AugmentationConfig().build() == Augmentation()
    assert set(AugmentationConfig.model_fields) == {field.name for field in dataclasses.fields(Augmentation)}
    plain = load_config(write(tmp_path, MINIMAL))
    assert plain.data.build_augmentation() == Augmentation()
    # A run begun before there was augmentation resolves to the same configuration.
    assert "augmentation" not in plain.to_dict()["data"]


def test_augmentation_is_read_and_flip_false_wins(tmp_path: Path) -> None:
    chosen = ["data.augmentation.crop=0.3", "data.augmentation.crop_scale=[0.7, 1]", "data.augmentation.flip=0.2"]
    config = load_config(write(tmp_path, MINIMAL), chosen)
    assert config.data.build_augmentation() == Augmentation(crop=0.3, crop_scale=(0.7, 1.0), flip=0.2)
    assert load_config(write(tmp_path, config.to_toml())) == config
    never = load_config(write(tmp_path, MINIMAL), [*chosen, "data.flip=false"])
    assert never.data.build_augmentation() == Augmentation(crop=0.3, crop_scale=(0.7, 1.0), flip=0.0)


def test_a_folder_of_another_augmentation_is_refused_by_the_key_that_differs(tmp_path: Path) -> None:
    own = [f"run.output={tmp_path / 'out'}", "data.augmentation.crop=0.3"]
    claim_run_folder(load_config(write(tmp_path, MINIMAL), own))
    claim_run_folder(load_config(write(tmp_path, MINIMAL), own))
    with pytest.raises(ConfigError, match=r"data\.augmentation\.crop is 0\.3 there, 0\.4 here"):
        claim_run_folder(load_config(write(tmp_path, MINIMAL), [own[0], "data.augmentation.crop=0.4"]))
