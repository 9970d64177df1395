"""The batch script of a run, and Slurm's complaints in one line."""

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Resources, Toleration, Volume
from deploy.submit.slurm import SlurmTarget
from deploy.submit.slurm_commands import explained, slurm
from deploy.submit.slurm_script import SlurmOptions, megabytes, render_script

pytestmark = pytest.mark.unit

JOB = Job("one", Path("/run.toml"), '[run]\noutput = "/runs/it\'s $HOME `one`"\n', Path("/runs/one"), nodes=2)
OPTIONS = SlurmOptions(3, None, ())
FOLDER = Path("/home/me/.local/state/pfc/jobs/one")


def rendered(job: Job, options: SlurmOptions = OPTIONS) -> str:
    return render_script(job, options, FOLDER, "/venv/bin/python")


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def test_the_least_script() -> None:
    assert directives(rendered(JOB)) == [
        "--job-name=one",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--requeue",
        "--open-mode=append",
        f"--output={FOLDER}/slurm-%j.log",
    ]


def test_all_that_can_be_asked_for() -> None:
    job = replace(
        JOB,
        gpus=True,
        ranks_per_node=8,
        queue="gpu",
        image="registry/pfc:1",
        resources=Resources("16", "64Gi"),
        volumes=(Volume("/mnt/faces", "/data", read_only=True), Volume("/mnt/runs", "/runs")),
        environment={"NOTE": "it's 1"},
        passed_through={"NCCL_DEBUG": "INFO"},
        grace_seconds=300,
        deadline_seconds=3661,
    )
    script = rendered(job, replace(OPTIONS, sbatch=("--account=faces",)))
    assert directives(script)[6:] == [
        "--partition=gpu",
        "--gpus-per-node=8",
        "--cpus-per-task=16",
        "--mem=65536M",
        "--time=61:01",
        "--signal=B:USR1@300",
        "--account=faces",
    ]
    assert (
        "--cpus-per-task=16 --container-image=registry/pfc:1 --container-mounts=/mnt/faces:/data:ro,/mnt/runs:/runs"
        in script
    )
    assert "export PET_NNODES=$SLURM_JOB_NUM_NODES PET_NPROC_PER_NODE=8 PET_MAX_RESTARTS=0" in script
    assert "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=270 PFC_MEETING_SECONDS=900\n" in script
    assert "PFC_MEETING_SECONDS=120\n" in rendered(JOB)
    assert "PFC_MEETING_SECONDS=7\n" in rendered(job, replace(OPTIONS, meeting_seconds=7))
    assert "export NCCL_DEBUG=INFO\nexport NOTE='it'\"'\"'s 1'\n" in script


def test_the_script_is_one_and_carries_the_configuration_as_it_is() -> None:
    script = rendered(JOB)
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=30, check=False).returncode == 0
    start = script.index("PFC_RUN_TOML=$(cat")
    end = script.index("export PFC_RUN_TOML\n")
    shown = subprocess.run(
        ["bash", "-c", script[start:end] + 'printf "%s\\n" "$PFC_RUN_TOML"'],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert shown.stdout == JOB.config_text


def test_a_folder_with_a_space_and_a_percent_sign() -> None:
    script = render_script(JOB, OPTIONS, Path("/home/my runs/100%"), "python")
    assert '#SBATCH --output="/home/my runs/100%%/slurm-%j.log"' in script.splitlines()
    assert "folder='/home/my runs/100%'" in script.splitlines()


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("64Gi", 65536),
        ("64G", 61036),
        ("512Mi", 512),
        ("1.5Gi", 1536),
        ("1", 1),
        ("1073741824", 1024),
        ("1Ti", 1 << 20),
    ],
)
def test_memory_as_slurm_counts(amount: str, expected: int) -> None:
    assert megabytes(amount) == expected


@pytest.mark.parametrize("amount", ["", "lots", "64GB", "64i", "-1Gi", "1 Gi"])
def test_memory_that_is_none(amount: str) -> None:
    with pytest.raises(SubmitError, match="write 64Gi"):
        megabytes(amount)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (replace(JOB, resources=Resources(shm="8Gi")), "--shm"),
        (replace(JOB, resources=Resources(cpus="500m")), "whole ones"),
        (replace(JOB, resources=Resources(memory="lots")), "--memory lots"),
        (replace(JOB, tolerations=(Toleration("gpu"),)), "--toleration"),
        (replace(JOB, node_selector={"zone": "a"}), "--constraint=FEATURE"),
        (replace(JOB, secrets={"A": "b/c"}), "exported variables reach the run"),
        (replace(JOB, volumes=(Volume("/a", "/b"),)), "without --image"),
        (replace(JOB, queue="gpu\n#SBATCH --exclusive"), "not a name"),
    ],
)
def test_what_slurm_cannot_carry(job: Job, message: str) -> None:
    with pytest.raises(SubmitError) as error:
        SlurmTarget(OPTIONS).check(job)
    assert message in str(error.value)


def test_options_of_its_own() -> None:
    parser = argparse.ArgumentParser()
    SlurmTarget.add_arguments(parser)
    words = ["--python", "/venv/bin/python", "--sbatch=--account=faces", "--max-restarts", "5"]
    job = replace(JOB, resources=Resources("8", "64Gi"))
    target = SlurmTarget.from_arguments(parser.parse_args(words))
    target.check(job)
    script = target.render(job)
    assert "#SBATCH --account=faces\n" in script
    assert "max_restarts=5\n" in script
    assert "\n/venv/bin/python -m deploy.launch.agent -m trainer train" in script
    with pytest.raises(SubmitError, match="--sbatch account"):
        SlurmTarget(replace(OPTIONS, sbatch=("account=faces",)))


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
            2,
            "sbatch: Invalid partition name specified (invalid partition specified: nope)",
        ),
        ("sbatch: error: Batch job submission failed: Invalid user id\n", 2, "this user may not"),
        ("sbatch: error: Unable to contact slurm controller (connect failure)\n", 1, "does not answer"),
        ("", 2, "said nothing"),
    ],
)
def test_complaints_in_one_line(said: str, code: int, message: str) -> None:
    line, found = explained("sbatch", said)
    assert found == code
    assert message in line
    assert "\n" not in line


def test_without_slurm_s_programs() -> None:
    with pytest.raises(SubmitError, match="sbatch-of-no-machine is not on this machine"):
        slurm(["sbatch-of-no-machine"])
