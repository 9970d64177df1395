"""What a job becomes on Kubernetes: every option, in every kind of workload."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_jobs import bare, full
from pod_monitor_fields import ENDPOINT, RELABELING, SPEC, of_known_fields

from deploy.submit.job import Job, Resources, Toleration, Volume
from deploy.submit.k8s.documents import documents
from deploy.submit.k8s.options import KINDS, Kind, Options
from deploy.submit.k8s.rules import problems
from deploy.submit.k8s.rules.reading import pod_jobs, value_of
from deploy.submit.k8s.schemas import MODELS, schema_problems
from deploy.submit.kubernetes import KubernetesTarget
from trainer.config import load_config
from trainer.failure_config import FailureConfig

pytestmark = pytest.mark.unit

ALL = Options(
    namespace="ml",
    service_account="trainer",
    image_pull_secret="registry",
    max_restarts=5,
    pod_monitor=True,
    monitor_labels={"release": "prometheus"},
    startup_seconds=1800,
)
NOTHING = Options()
VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")


def rendered(job: Job, options: Options, kind: Kind = "job") -> list[dict[str, Any]]:
    return documents(job, dataclasses.replace(options, kind=kind))


def by_kind(job: Job, options: Options, kind: Kind = "job") -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in rendered(job, options, kind)}


def pod(job: Job, options: Options = NOTHING, kind: Kind = "job") -> dict[str, Any]:
    (found,) = pod_jobs(rendered(job, options, kind))
    return found.pod


def container(job: Job, options: Options = NOTHING, kind: Kind = "job") -> dict[str, Any]:
    (found,) = pod(job, options, kind)["containers"]
    assert isinstance(found, dict)
    return found


def variables(job: Job, kind: Kind = "job") -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(job, NOTHING, kind)["env"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("job", "options"), [(bare(), NOTHING), (full(), ALL)], ids=["bare", "full"])
@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_and_rules_find_nothing(kind: Kind, job: Job, options: Options, version: str) -> None:
    pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make venv installs it")
    pytest.importorskip("kubeflow_trainer_api", reason="needs kubeflow-trainer-api: make venv installs it")
    found = rendered(job, options, kind)
    assert list(problems(found)) == []
    # backoffLimitPerIndex is known from 1.28 on, podReplacementPolicy too.
    assert list(schema_problems(found, version)) == []
    KubernetesTarget(dataclasses.replace(options, kind=kind)).check(job)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("job", ["ConfigMap", "PodMonitor", "Service", "Job"]),
        ("jobset", ["ConfigMap", "PodMonitor", "JobSet"]),
        ("trainjob", ["ConfigMap", "PodMonitor", "TrainingRuntime", "TrainJob"]),
    ],
)
def test_objects_in_the_order_in_which_they_are_sent(kind: Kind, sent: list[str]) -> None:
    found = rendered(full(), ALL, kind)
    assert [document["kind"] for document in found] == sent
    for document in found:
        assert document["metadata"]["name"] == "faces"
        assert document["metadata"]["namespace"] == "ml"
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "pfc"
        assert labels["app.kubernetes.io/instance"] == "faces"
        queue = {"kueue.x-k8s.io/queue-name": "training"}
        assert (queue.items() <= labels.items()) == (document is found[-1]), "Kueue queues the workload alone"
    without = rendered(bare(), NOTHING, kind)
    assert [document["kind"] for document in without] == [each for each in sent if each != "PodMonitor"]
    assert not any("namespace" in document["metadata"] for document in without)
    assert not any("kueue.x-k8s.io/queue-name" in document["metadata"]["labels"] for document in without)


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_is_where_the_command_reads_it(kind: Kind) -> None:
    config_map = by_kind(full(), ALL, kind)["ConfigMap"]
    assert config_map["data"] == {"run.toml": full().config_text}
    assert config_map["immutable"] is True
    launcher = ["python", "-m", "deploy.launch.agent", "-m", "trainer", "train", "/etc/pfc/run.toml"]
    assert container(bare(), kind=kind)["command"] == launcher
    assert container(full(), kind=kind)["command"] == launcher
    volumes = {volume["name"]: volume for volume in pod(full(), kind=kind)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container(full(), kind=kind)["volumeMounts"]}
    assert volumes[mounts["/etc/pfc"]["name"]]["configMap"]["name"] == config_map["metadata"]["name"]


def test_an_indexed_job() -> None:
    spec = by_kind(full(), ALL)["Job"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert spec["podReplacementPolicy"] == "Failed"
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (5, 0)
    assert "backoffLimit" not in spec
    assert spec["activeDeadlineSeconds"] == 86400
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore", "FailJob", "Count"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    codes = [(rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"]) for rule in rules[1:]]
    assert codes == [("In", [75]), ("In", [2]), ("NotIn", [2, 75])]
    assert {rule["onExitCodes"]["containerName"] for rule in rules[1:]} == {"trainer"}
    assert "activeDeadlineSeconds" not in by_kind(bare(), NOTHING)["Job"]["spec"]


def test_nodes_meet_at_the_first_pod() -> None:
    found = by_kind(full(), ALL)
    service = found["Service"]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"] == found["Job"]["spec"]["template"]["metadata"]["labels"]
    assert pod(full())["subdomain"] == found["Service"]["metadata"]["name"]
    place = variables(full())
    assert place["PET_NNODES"] == "3"
    assert place["PET_NPROC_PER_NODE"] == "2"
    field = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert place["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": field}}
    assert place["PET_MASTER_ADDR"] == "faces-0.faces"
    assert place["PET_MASTER_PORT"] == "29500"
    assert place["PET_MAX_RESTARTS"] == "0"


def test_a_job_set_starts_all_nodes_again() -> None:
    spec = by_kind(full(), ALL, "jobset")["JobSet"]["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 5
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy", "DeadlineExceeded"])
    (replicated,) = spec["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["replicas"], job["completions"], job["parallelism"]) == (1, 3, 3)
    assert job["backoffLimit"] == 0
    assert "backoffLimitPerIndex" not in job
    assert job["activeDeadlineSeconds"] == 86400
    assert spec["network"]["publishNotReadyAddresses"] is True
    assert variables(full(), "jobset")["PET_MASTER_ADDR"] == "faces-node-0-0.faces"


def test_a_train_job_leaves_the_place_to_kubeflow() -> None:
    found = by_kind(full(), ALL, "trainjob")
    spec = found["TrainJob"]["spec"]
    assert spec["trainer"] == {"numNodes": 3, "numProcPerNode": 2}
    assert spec["activeDeadlineSeconds"] == 86400
    assert spec["runtimeRef"]["name"] == found["TrainingRuntime"]["metadata"]["name"]
    runtime = found["TrainingRuntime"]["spec"]
    assert runtime["mlPolicy"] == {"numNodes": 3, "torch": {}}
    (replicated,) = runtime["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert "activeDeadlineSeconds" not in replicated["template"]["spec"], "the TrainJob has it"
    assert not [name for name in variables(full(), "trainjob") if name.startswith("PET_")]


@pytest.mark.parametrize("kind", KINDS)
def test_environment(kind: Kind) -> None:
    found = variables(full(), kind)
    assert found["NCCL_DEBUG"] == "INFO"
    assert found["PRICE"] == "5$$ $$(HOME)", "Kubernetes makes '5$ $(HOME)' of it"
    assert found["WANDB_API_KEY"] == {"secretKeyRef": {"name": "wandb", "key": "api-key"}}
    assert found["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "870"
    assert pod(full(), kind=kind)["terminationGracePeriodSeconds"] == 900
    nearer = variables(full(environment={"NCCL_DEBUG": "WARN", "HOME": "/runs/home"}), kind)
    assert (nearer["NCCL_DEBUG"], nearer["HOME"]) == ("WARN", "/runs/home"), "--env beats --pass-env and our own"


@pytest.mark.parametrize("kind", KINDS)
def test_volumes(kind: Kind) -> None:
    job = full(volumes=(Volume("lake", "/data", True), Volume("lake", "/runs"), Volume("other", "/pairs", True)))
    volumes = {volume["name"]: volume for volume in pod(job, kind=kind)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container(job, kind=kind)["volumeMounts"]}
    sources = [volume.get("persistentVolumeClaim") for volume in volumes.values()]
    claims = [source["claimName"] for source in sources if source]
    assert claims == ["lake", "other"], "a claim is one volume, however often it is mounted"
    assert mounts["/data"]["name"] == mounts["/runs"]["name"]
    assert [mounts[path]["readOnly"] for path in ("/data", "/runs", "/pairs")] == [True, False, True]
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes[mounts["/tmp"]["name"]]["emptyDir"] == {}
    shm = {volume["name"]: volume for volume in pod(bare(), kind=kind)["volumes"]}["shm"]
    assert shm["emptyDir"]["sizeLimit"] == "1Gi"


@pytest.mark.parametrize("kind", KINDS)
def test_resources(kind: Kind) -> None:
    assert container(full(), kind=kind)["resources"] == {
        "requests": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "2"},
    }
    assert container(full(gpus=False, resources=Resources(cpus="2")), kind=kind)["resources"] == {
        "requests": {"cpu": "2"}
    }
    assert "resources" not in container(bare(), kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_where_pods_run_and_as_whom(kind: Kind) -> None:
    tolerations = (Toleration("a"), Toleration("b", "c", "NoExecute"), Toleration("", None), Toleration("d", "", ""))
    spec = pod(full(tolerations=tolerations), ALL, kind)
    assert spec["tolerations"] == [
        {"key": "a", "operator": "Exists"},
        {"key": "b", "operator": "Equal", "value": "c", "effect": "NoExecute"},
        {"operator": "Exists"},
        {"key": "d", "operator": "Equal", "value": ""},
    ]
    assert spec["nodeSelector"] == {"disk": "nvme", "gpu": "h100"}
    assert spec["serviceAccountName"] == "trainer"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    plain = pod(bare(), NOTHING, kind)
    assert not plain.keys() & {"tolerations", "nodeSelector", "serviceAccountName", "imagePullSecrets"}
    for each in (spec, plain):
        assert each["automountServiceAccountToken"] is False
        assert each["enableServiceLinks"] is False
        assert each["securityContext"]["runAsUser"] == each["securityContext"]["fsGroup"] == 10001
        assert each["securityContext"]["runAsNonRoot"] is True
        assert each["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("kind", KINDS)
def test_ports_and_probes(kind: Kind, tmp_path: Path) -> None:
    found = container(full(), ALL, kind)
    assert [(port["name"], port["containerPort"]) for port in found["ports"]] == [
        ("metrics-0", 9500),
        ("metrics-1", 9501),
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"] == {"path": "/healthz", "port": "metrics-0"}
    startup, liveness = found["startupProbe"], found["livenessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 1800
    assert not container(bare(), kind=kind).keys() & {"ports", "startupProbe", "readinessProbe", "livenessProbe"}
    # /healthz is 503 as long as a run hangs, and the watchdog must have its turn first.
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 4 * 600, "run.timeout_seconds"
    assert FailureConfig().stall_seconds < 600
    patient = full(config_text=full().config_text + "[failure]\nstall_seconds = 3600.0\n")
    liveness = container(patient, ALL, kind)["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 4 * 3600
    path = tmp_path / "run.toml"
    path.write_text(full().config_text + "[train]\nsteps = 1\n", encoding="utf-8")
    assert load_config(path).run.timeout_seconds == 600


def test_a_pod_monitor() -> None:
    monitor = by_kind(full(), ALL)["PodMonitor"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    of_known_fields(monitor["spec"], SPEC)
    assert monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "faces"
    for rank, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"]):
        of_known_fields(endpoint, ENDPOINT)
        assert (endpoint["port"], endpoint["honorLabels"]) == (f"metrics-{rank}", True)
        for relabeling in endpoint["relabelings"]:
            of_known_fields(relabeling, RELABELING)


@pytest.mark.parametrize("kind", KINDS)
def test_yaml_is_read_as_it_was_meant(kind: Kind) -> None:
    text = 'a = "ü: # - {}"\n\nb = """\n  off\n"""\nc = 1e5\n'
    target = KubernetesTarget(dataclasses.replace(ALL, kind=kind))
    job = full(config_text=text, environment={"YES": "yes", "NUMBER": "010", "NOTHING": "", "LINES": "a\n b\t\n"})
    written = target.render(job)
    assert list(yaml.safe_load_all(written)) == documents(job, dataclasses.replace(ALL, kind=kind))
    assert written == target.render(job)
    assert '  run.toml: |\n    a = "ü: # - {}"\n\n    b = ' in written, "as it stands in the file"
    assert "&id" not in written
    assert "!" not in written


@pytest.mark.parametrize(
    ("kind", "path", "value", "told"),
    [
        ("Job", ("spec", "completion"), 1, "Additional properties are not allowed"),
        ("Job", ("spec", "completions"), "3", "is not of type"),
        ("ConfigMap", ("data",), [], "is not of type"),
        ("Service", ("spec", "clusterIp"), "None", "Additional properties are not allowed"),
        ("JobSet", ("spec", "failurePolicy", "maxRestart"), 3, "failurePolicy.maxRestart: unknown field"),
        ("JobSet", ("spec", "failurePolicy", "maxRestarts"), "3", "maxRestarts"),
        ("TrainJob", ("spec", "trainer", "numProcs"), 2, "trainer.numProcs: unknown field"),
        ("TrainJob", ("spec", "trainer", "numNodes"), "3", "num_nodes|numNodes"),
        ("TrainingRuntime", ("spec", "mlPolicy", "numNode"), 2, "mlPolicy.numNode: unknown field"),
    ],
)
def test_schemas_find_mistakes(kind: str, path: tuple[str, ...], value: Any, told: str) -> None:
    pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make venv installs it")
    pytest.importorskip("kubeflow_trainer_api", reason="needs kubeflow-trainer-api: make venv installs it")
    of: dict[str, Kind] = {"JobSet": "jobset", "TrainJob": "trainjob", "TrainingRuntime": "trainjob"}
    document = by_kind(full(), ALL, of.get(kind, "job"))[kind]
    assert not list(schema_problems([document]))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (problem,) = schema_problems([document])
    assert re.search(told, problem), problem


def test_deep_fields_of_published_models_are_compared_too() -> None:
    pytest.importorskip("kubeflow_trainer_api", reason="needs kubeflow-trainer-api: make venv installs it")
    assert set(MODELS) == {"JobSet", "TrainJob", "TrainingRuntime"}
    document = by_kind(full(), ALL, "jobset")["JobSet"]
    container_ = document["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert value_of(container_, "PET_NNODES") == "3"
    container_["volumeMounts"][0]["readonly"] = True
    container_["imagePull"] = "Always"
    found = sorted(schema_problems([document]))
    assert len(found) == 2
    assert all(problem.endswith("unknown field") for problem in found)
