"""``pfc plan``: its figures against the real head, the real modules and its own README."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from partial_fc import CenterSGD, PartialFC, memory_use
from tests.support.commands import run
from trainer.backbones import BackboneConfig, build_backbone
from trainer.cli import main
from trainer.config import Config, config_from
from trainer.errors import ConfigError
from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.calibration import VERSION, for_ranks, read_calibration
from trainer.plan.deepspeed_buffers import deepspeed_buffers
from trainer.plan.devices import DEVICES, device_named, read_device
from trainer.plan.imagined_ranks import imagined_shares
from trainer.plan.memory import memory_of
from trainer.plan.planning import Machine, fits, largest_identities, make_plan
from trainer.plan.problem import Problem
from trainer.plan.rates import DENSE_PRODUCTS, rates_of
from trainer.plan.timing import head_seconds, timing_of, traffic_of

pytestmark = pytest.mark.unit

PLAN_README = Path(__file__).parents[2] / "trainer" / "plan" / "README.md"


def a_config(**tables: dict[str, Any]) -> Config:
    values: dict[str, dict[str, Any]] = {
        "run": {"output": "planned"},
        "data": {"records": "planned", "batch_size": 64},
        "train": {"epochs": 1},
        "backbone": {"name": "mobilefacenet"},
    }
    for table, keys in tables.items():
        values[table] = values.get(table, {}) | keys
    return config_from(values, "test")


def a_problem(identities: int = 1_000_000, ranks: int = 8, **tables: dict[str, Any]) -> Problem:
    return Problem(a_config(**tables), identities, None, ranks, 8)


def h100() -> Machine:
    device = device_named("h100")
    return Machine(device.name, device.memory, False, rates_of(device))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def parts(problem: Problem, *, on_cpu: bool = False) -> dict[str, tuple[float, float]]:
    memory = memory_of(problem, h100().rates, on_cpu=on_cpu)
    return {part.name: (part.steady, part.worst) for part in memory.parts}


# --- shares of ranks that are not there ---


def test_every_rank_s_share_is_made_and_they_cover_all_classes_once() -> None:
    shares = imagined_shares(a_config(), 1_000_003, 64)
    assert [share.rank for share in shares] == list(range(64))
    assert shares[0].start == 0 and shares[-1].stop == 1_000_003
    assert {share.stop - share.start for share in shares} == {15_625, 15_626}


def test_an_imagined_head_has_the_bytes_of_a_real_one() -> None:
    real = PartialFC(999, 512, seed=3)
    rows = real.rows
    assert rows is not None
    found = imagined_shares(a_config(), 999, 1)[0].nbytes
    assert found == sum(memory_use(real, CenterSGD(real)).values()) + 999
    rows.encode()  # a first step does
    codes = parts(a_problem(999, 1))["int8 codes"][0]
    assert codes == memory_use(real, CenterSGD(real))["center_codes"]


def test_a_hundred_million_centers_on_the_meta_device_take_no_memory() -> None:
    assert sum(share.nbytes for share in imagined_shares(a_config(), 100_000_000, 64)) > 100_000_000 * 512 * 4


# --- the backbone, from its own modules ---


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_activations_are_those_that_autograd_keeps(name: str) -> None:
    config = BackboneConfig.model_validate({"name": name})
    cost = backbone_cost(config, 112, 2)
    network = build_backbone(config, image_size=112)
    weights = {each.untyped_storage().data_ptr() for each in [*network.parameters(), *network.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embeddings = network(torch.zeros(2, 3, 112, 112))
    assert embeddings.shape == (2, 512)
    assert cost.kept == pytest.approx(sum(kept.values()), rel=0.05)
    assert cost.parameters == sum(each.numel() for each in network.parameters())


def test_costs_of_options_go_the_right_way() -> None:
    plain = backbone_cost(BackboneConfig(name="mobilefacenet"), 112)
    lowered = backbone_cost(BackboneConfig(name="mobilefacenet", precision="bfloat16"), 112)
    saving = backbone_cost(BackboneConfig(name="mobilefacenet", activation_checkpointing=True), 112)
    assert lowered.peak == pytest.approx(plain.peak / 2, rel=0.02)
    assert saving.peak < 0.3 * plain.peak
    forward, backward = plain.flops()
    assert backward == pytest.approx(2 * forward, rel=0.06)
    assert saving.flops()[1] == pytest.approx(3 * forward, rel=0.06), "the forward pass once more"
    assert backbone_cost(BackboneConfig(name="mobilefacenet"), 112, 8).peak == pytest.approx(plain.peak / 4, rel=0.05)


# --- the head, as one H100 was measured ---


def test_the_head_s_model_gives_what_one_h100_was_measured_to_take() -> None:
    rates = h100().rates
    for identities, batch, measured in ((1e6, 256, 10.9e-3), (4e6, 256, 22.5e-3), (1e6, 2048, 0.83 * 8 * 5.4e-3)):
        problem = a_problem(int(identities), 1, data={"batch_size": batch})
        assert head_seconds(problem, rates, "screened") == pytest.approx(measured, rel=0.08)
    dense = head_seconds(a_problem(1_000_000, 1, data={"batch_size": 256}), rates, "dense")
    assert dense == pytest.approx(7.5 * 5.4e-3, rel=0.01)
    assert DENSE_PRODUCTS < 7.5, "launches are no products"


def test_memory_beyond_the_centers_is_what_was_measured() -> None:
    found = parts(a_problem(1_000_000, 1, data={"batch_size": 256}), on_cpu=True)
    beyond = [sum(found[name][at] for name in ("int8 codes", "center momentum", "head buffers")) for at in (0, 1)]
    centers = found["centers"][0]
    assert beyond[0] / centers == pytest.approx(0.44, abs=0.05), "partial_fc/README.md"
    assert beyond[1] / centers < 1.6


def test_centers_in_bfloat16_and_in_host_memory_take_less_of_the_device() -> None:
    plain, half, host = (
        memory_of(a_problem(4_000_000, 1, head=head), h100().rates, on_cpu=False)
        for head in ({}, {"center_dtype": "bfloat16"}, {"center_memory": "host"})
    )
    table = 4_000_000 * 512 * 4
    assert plain.device(worst=False) - half.device(worst=False) == pytest.approx(table / 2)
    saved = plain.device(worst=False) - host.device(worst=False)
    assert 0.99 * table < saved < table, "but for what is staged"
    assert host.host(worst=False) - plain.host(worst=False) == pytest.approx(table)


def test_nothing_that_travels_grows_with_the_classes() -> None:
    few, many = (traffic_of(a_problem(identities, 8)) for identities in (10_000, 100_000_000))
    assert few == many
    assert (few.all_gather, few.reduce_scatter) == (64 * (4 * 512 + 8), 4 * 64 * 512)
    assert traffic_of(a_problem(10_000, 1)).wire == 0.0


def test_parts_of_the_head_follow_the_classes_of_a_rank() -> None:
    small, large = parts(a_problem(1_000_000, 8)), parts(a_problem(1_000_000, 16))
    for name in ("centers", "int8 codes"):
        assert large[name][0] == pytest.approx(small[name][0] / 2)
    assert all(steady <= worst for steady, worst in small.values())


def test_zero_splits_what_it_says() -> None:
    plain = parts(a_problem())
    for stage, split in ((1, "backbone optimizer"), (2, "backbone gradients"), (3, "backbone weights")):
        tables = {"train": {"engine": "deepspeed"}, "deepspeed": {"zero_optimization": {"stage": stage}}}
        assert parts(a_problem(**tables))[split][0] < plain[split][0]


def test_deepspeed_s_buffers_follow_its_settings() -> None:
    def buffers(ranks: int = 2, *, on_cpu: bool = False, **zero: int) -> float:
        tables: dict[str, Any] = {"train": {"engine": "deepspeed"}, "deepspeed": {"zero_optimization": zero}}
        return deepspeed_buffers(a_problem(ranks=ranks, backbone={"name": "iresnet18"}, **tables), on_cpu=on_cpu)

    cost = backbone_cost(a_problem(backbone={"name": "iresnet18"}).config.backbone, 112)
    weights, largest = 4.0 * cost.parameters, 4.0 * cost.largest
    bucket = 25.0 * (1 << 20)
    assert buffers(stage=0) == 0.0
    assert largest > bucket and cost.largest == 512 * 25088
    assert buffers(stage=1) == bucket + largest, "the largest gradient is copied whole"
    assert buffers(stage=1, on_cpu=True) == weights / 2 + weights, "gathering the weights takes more"
    assert buffers(stage=2) == bucket + bucket + largest
    assert buffers(stage=2, reduce_bucket_size=500_000_000) == 2e9 + 2 * weights
    assert buffers(stage=3) == bucket + largest + weights
    assert buffers(stage=3, ranks=4) == bucket + largest + weights
    assert buffers(stage=3, stage3_max_live_parameters=1000) == bucket + largest + weights / 2 + 4000
    assert buffers(stage=3, max_live_parameters=1000) == bucket + largest + weights / 2 + 4000


# --- the plan ---


def test_the_largest_number_of_identities_is_the_edge_of_what_fits() -> None:
    problem, machine = a_problem(), h100()
    largest = largest_identities(problem, machine)
    assert fits(replace(problem, identities=largest), machine)
    assert not fits(replace(problem, identities=int(1.02 * largest)), machine)


def test_what_does_not_fit_is_said_with_a_way_out_that_fits() -> None:
    machine = h100()
    plan = make_plan(a_problem(500_000_000, 8), machine)
    assert not plan.fits
    assert "the worst phase needs" in plan.limits[0]
    ranks = next(line for line in plan.advice if line.startswith("more ranks: "))
    assert fits(a_problem(500_000_000, int(ranks.split()[2])), machine)
    small = make_plan(a_problem(2_000, 1, data={"batch_size": 20_000}), machine)
    assert not small.fits
    assert any("micro_batches" in line or "checkpointing" in line for line in small.advice)


def test_more_ranks_take_less_time_an_epoch_and_a_dense_phase_more_a_step() -> None:
    plans = [make_plan(Problem(a_config(), 10_000_000, 100_000_000, ranks, 8), h100()) for ranks in (8, 64)]
    hours = [plan.epoch_hours for plan in plans]
    assert hours[0] is not None and hours[1] is not None and hours[1] < hours[0] / 4
    assert plans[0].dense_step is not None and plans[0].dense_step > plans[0].timing.step
    assert timing_of(a_problem(head={"loss": "cosface"}), h100().rates).mode == "softmax"


# --- as a command ---


def test_json_has_every_part_and_the_shares(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(
        capsys, "--identities", "1000000", "--images", "10000000", "--backbone", "mobilefacenet", "--world-size", "64",
        "--json",
    )  # fmt: skip
    assert code == 0
    facts = json.loads(out)
    assert facts["ranks"] == 64 and len(facts["shares"]) == 64
    assert set(facts["step_parts"]) == {
        "decode", "forward", "all-gather", "head", "reduce-scatter", "backward", "gradient all-reduce", "optimizer",
        "between steps",
    }  # fmt: skip
    assert sum(facts["step_parts"].values()) == pytest.approx(facts["step_seconds"])
    assert facts["memory_device"]["worst"] >= facts["memory_device"]["steady"] > 0
    assert facts["epoch_hours"] > 0 and facts["largest_identities"] > 1_000_000


def test_a_run_s_configuration_is_planned_and_options_override_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        a_config(data={"num_identities": 5000, "batch_size": 32}, run={"world_size": 2}).to_toml(), encoding="utf-8"
    )
    code, out, _ = told(capsys, str(path), "--batch-size", "48", "--set", "head.loss=cosface", "--json")
    facts = json.loads(out)
    assert (code, facts["ranks"], facts["batch_size"], facts["head"]) == (0, 2, 48, "softmax")
    assert facts["rows_per_rank"] == 2500
    code, out, _ = told(capsys, str(path), "--ranks", "4")
    assert code == 0 and "4 ranks of h100" in out and "activations" in out
    assert list(tmp_path.iterdir()) == [path], "nothing is written"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--identities", "1000", "--device", "h10"], "nearest known one is 'h100'"),
        (["--identities", "0"], "num_identities"),
        (["--identities", "10", "--ranks", "64"], "plan fewer ranks"),
        (["--identities", "1000", "--ranks", "0"], "--ranks 0"),
        (["--identities", "1000", "--memory", "-3"], "memory must be a positive number"),
        (["--identities", "1000", "--bf16", "nan"], "bf16 must be a positive number"),
        (["--identities", "1000", "--images", "0"], "--images 0"),
        (["--identities", "1000", "--backbone", "resnet"], "backbone.name"),
        (["--identities", "1000", "--sample-rate", "2"], "head.sample_rate"),
        (["--identities", "1000", "--set", "head.los=sface"], "nearest known key is 'head.loss'"),
        (["--identities", "1000", "--ranks", "2", "--world-size", "4"], "differ"),
        (["--identities", "1000", "--ranks-per-node", "0"], "--ranks-per-node 0"),
        (["--identities", "1000", "--calibration", "nowhere.json"], "no such file"),
        (["--identities", "1000", "--image-size", "33"], "image size 33"),
        (["--calibrate"], "--calibration FILE"),
        (["nowhere.toml"], "no such file"),
        ([], "how many identities?"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err and len(err.splitlines()) == 1


def test_a_device_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('like = "a100-80g"\nmemory_gib = 24\nbf16_tflops = 100.0\n', encoding="utf-8")
    device = read_device(path)
    assert (device.name, device.memory, device.bf16) == ("mine", 24 * 2**30, 100e12)
    assert device.int8 == DEVICES["a100-80g"].int8
    for text, says in (
        ("memory = 3", "nearest known key is 'memory_gib'"),
        ("memory_gib = true", "positive number"),
        ("memory_gib = 1e300", "positive number"),
        ('like = "h1"', "is none of"),
        ("memory_gib =", "not readable as TOML"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=says):
            read_device(path)


def test_a_calibration_is_read_by_layout_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    rates = rates_of(device_named("cpu"))
    slow = replace(rates, product=1e9)
    path = tmp_path / "here.json"

    def write(layouts: Any, version: int = VERSION) -> None:
        path.write_text(json.dumps({"version": version, "layouts": layouts}), encoding="utf-8")

    write({"1": rates.to_dict(), "2": slow.to_dict()})
    found = read_calibration(path)
    assert for_ranks(found, 1) == rates and for_ranks(found, 8) == slow
    good = rates.to_dict()
    for layouts, version, says in (
        ({"1": good}, VERSION + 1, "of this version"),
        ({}, VERSION, "not numbers of ranks"),
        ({"one": good}, VERSION, "not numbers of ranks"),
        ({"1": good | {"product": 0.0}}, VERSION, "product is 0"),
        ({"1": good | {"decode": "fast"}}, VERSION, "no possible figure"),
        ({"1": good | {"forward": {"vit": 1.0}}}, VERSION, "a number for each"),
        ({"1": {"product": 1.0}}, VERSION, "not the figures"),
    ):
        write(layouts, version)
        with pytest.raises(ConfigError, match=says):
            read_calibration(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="not readable as JSON"):
        read_calibration(path)


def test_the_readme_s_table_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "--table")
    assert code == 0
    assert out.strip() in PLAN_README.read_text(encoding="utf-8")
    computed = {line.split(" | ")[0]: line.split(" | ") for line in out.splitlines()[2:]}
    lines = (PLAN_README.parents[2] / "README.md").read_text(encoding="utf-8").splitlines()
    first = lines.index(next(line for line in lines if line.startswith("| identities, GPUs |")))
    short = [line.split(" | ") for line in lines[first + 2 : first + 6]]
    assert [[cells[0], cells[1], cells[2]] for cells in short] == [
        [cells[0], computed[cells[0]][1], computed[cells[0]][3]] for cells in short
    ]


def test_a_plan_loads_nothing_that_only_training_and_drawing_need(tmp_path: Path) -> None:
    code = """
import sys
from trainer.cli import main
assert main(["plan", "--identities", "100000", "--backbone", "mobilefacenet"]) == 0
slow = ("nvidia.dali", "deepspeed", "matplotlib", "cv2", "wandb", "trainer.training")
print("loaded:", [name for name in slow if name in sys.modules])
"""
    done = run([sys.executable, "-c", code], cwd=tmp_path)
    assert done.out.splitlines()[-1] == "loaded: []", done.err
