"""What is rendered for Kubernetes, run here: each pod's command and environment as a process of this machine.

What only a pod has (its index, its host name, /etc/pfc, a port of its own) is put in its place; all else is as in the
document.
"""

import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from commands import environment, running
from kubernetes_jobs import bare
from ports import free_port
from small_faces import make_small_faces, write_run

from deploy.submit.k8s.contract import INDEX_ANNOTATION
from deploy.submit.k8s.documents import documents
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.rules.reading import pod_jobs

pytestmark = pytest.mark.system

DEADLINE_SECONDS = 150.0


def as_the_kubelet_has_it(container: dict[str, Any], index: int, port: int) -> dict[str, str]:
    """The container's variables."""
    found = {}
    for variable in container["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"].replace("$$", "$")
        else:
            assert variable["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.annotations['{INDEX_ANNOTATION}']"
            found[variable["name"]] = str(index)
    return found | {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}


def test_the_pods_of_a_job_train(tmp_path: Path) -> None:
    faces = make_small_faces(tmp_path / "faces")
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces, steps=4)
    job = bare(
        name="small", config=config, config_text=config.read_text(), nodes=2, environment={"PRICE": "5$ $(HOME)"}
    )
    (rendered,) = pod_jobs(documents(job, Options()))
    (container,) = rendered.containers
    port, printed, codes = free_port(), [tmp_path / f"pod_{index}" for index in range(2)], []
    with ExitStack() as stack:
        processes: list[subprocess.Popen[str]] = []
        for index in range(2):
            variables = as_the_kubelet_has_it(container, index, port)
            assert variables["PRICE"] == "5$ $(HOME)"
            words = [sys.executable if word == "python" else word for word in container["command"]]
            words = [str(config) if word == "/etc/pfc/run.toml" else word for word in words]
            assign = [f"{name}={value}" for name, value in variables.items() if name != "HOME"]
            command = ["env", f"HOME={tmp_path}", *assign, *words]
            mark = uuid.uuid4().hex
            process = stack.enter_context(running(command, cwd=tmp_path, mark=mark, printed=printed[index]))
            processes.append(process)
        end = time.monotonic() + DEADLINE_SECONDS
        codes = [process.wait(timeout=max(1.0, end - time.monotonic())) for process in processes]
    assert codes == [0, 0], [path.read_text() for path in printed]
    assert (tmp_path / "out" / "checkpoints" / "step_00000004").is_dir()


def test_nothing_else_says_where_a_pod_stands() -> None:
    """Else the test above would tell nothing of the rendered variables."""
    assert not [name for name in environment() if name.startswith("PET_")]
