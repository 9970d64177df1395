"""The [deepspeed] table: what the trainer decides is refused, the rest is DeepSpeed's, read from TOML or JSON."""

import json
from pathlib import Path

import pytest

from trainer.config import load_config
from trainer.deepspeed_config import bucket_size, zero_stage
from trainer.errors import ConfigError
from trainer.run_folder import claim_run_folder

pytestmark = pytest.mark.unit

CHOSEN = "train.engine=deepspeed"
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("deepspeed.train_batch_size=8", "deepspeed.train_batch_size is decided by the trainer: .* data.batch_size"),
        ("deepspeed.gradient_clipping=1.0", "set instead train.clip_norm"),
        ("deepspeed.gradient_accumulation_steps=2", "set instead train.micro_batches"),
        ("deepspeed.bf16.enabled=true", "set instead backbone.precision"),
        ("deepspeed.optimizer.type=Adam", r"set instead the table \[optimizer\]"),
        ("deepspeed.scheduler.type=WarmupLR", r"set instead the table \[schedule\]"),
        ("deepspeed.gradient_allreduce_op=sum", "gradients are summed over ranks in any case"),
        ("deepspeed.zero_optimisation.stage=1", "the nearest known key is 'deepspeed.zero_optimization'"),
        ("deepspeed.zero_optimization.stage=4", "stage must be 0, 1, 2 or 3"),
        ("deepspeed.zero_optimization=2", "stage must be 0, 1, 2 or 3"),
        ("deepspeed.zero_optimization.offload_optimizer.device=cpu", "offload_optimizer is not supported"),
        ("deepspeed.config=absent.json", r"deepspeed.config absent.json: cannot be read \(No such file"),
        ("backbone.precision=float16", "with DeepSpeed use 'bfloat16'"),
    ],
)
def test_one_clear_line(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, MINIMAL), [CHOSEN, override])
    assert "\n" not in str(caught.value)


def test_tables_that_do_not_go_together(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=r"\[deepspeed\] has no effect with train.engine = 'ddp'"):
        load_config(path, ["deepspeed.zero_optimization.stage=1"])
    with pytest.raises(ConfigError, match=r"train.compile does not go with .*stage = 3"):
        load_config(path, [CHOSEN, "train.compile=true", "deepspeed.zero_optimization.stage=3"])
    with pytest.raises(ConfigError, match=r"train.micro_batches is 9, more than the 8 images"):
        load_config(path, ["train.micro_batches=9", "data.batch_size=8"])


def test_a_bucket_is_no_larger_than_the_network_and_25_mib() -> None:
    assert bucket_size(1000) == 1000
    assert bucket_size(0) == 1, "DeepSpeed refuses 0"
    assert 4 * bucket_size(24_000_000) == 25 << 20


def test_a_json_file_becomes_part_of_the_resolved_configuration(tmp_path: Path) -> None:
    """The file may change or vanish; a run goes on with what it read."""
    zero = {"stage": 2, "overlap_comm": None, "reduce_bucket_size": "auto", "round_robin_gradients": True}
    content = {"zero_optimization": zero, "train_batch_size": "auto", "steps_per_print": 10}
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(content))
    config = load_config(write(tmp_path, MINIMAL), [CHOSEN, f"deepspeed.config={file}"])
    assert config.deepspeed == {
        "zero_optimization": {"stage": 2, "round_robin_gradients": True},
        "steps_per_print": 10,
    }
    assert zero_stage(config.deepspeed) == 2
    assert load_config(write(tmp_path, config.to_toml())) == config
    with pytest.raises(ConfigError, match="'steps_per_print' belongs into that file"):
        load_config(write(tmp_path, MINIMAL), [CHOSEN, f"deepspeed.config={file}", "deepspeed.steps_per_print=1"])
    for text in ("[1, 2]", "{", "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match=r"deepspeed\.config .*ds\.json"):
            load_config(write(tmp_path, MINIMAL), [CHOSEN, f"deepspeed.config={file}"])


def test_a_run_may_go_on_by_another_engine_but_not_another_optimizer(tmp_path: Path) -> None:
    own = f"run.output={tmp_path / 'out'}"
    claim_run_folder(load_config(write(tmp_path, MINIMAL), [own]))
    others = ["train.micro_batches=4", "failure.non_finite=skip", "deepspeed.zero_optimization.stage=3"]
    claim_run_folder(load_config(write(tmp_path, MINIMAL), [own, CHOSEN, *others]))
    claim_run_folder(load_config(write(tmp_path, MINIMAL), [own, "train.compile=true"]))
    for override, message in (
        ("train.clip_norm=1.0", "train.clip_norm is None there, 1.0 here"),
        ("optimizer.decay_norm_and_bias=false", "optimizer.decay_norm_and_bias is True there, False here"),
    ):
        with pytest.raises(ConfigError, match=message):
            claim_run_folder(load_config(write(tmp_path, MINIMAL), [own, override]))
