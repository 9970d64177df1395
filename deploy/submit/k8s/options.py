"""What can be asked for on Kubernetes alone."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["job", "trainjob", "jobset"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Options:
    """Of this target.

    namespace, context: None: as the kubeconfig says. kubeconfig: None: KUBECONFIG, ~/.kube/config, or the service
    account of the pod that this runs in. max_restarts: of all nodes together, after failures. monitor_labels: by which
    the operator's Prometheus selects PodMonitors. startup_seconds: until the first step; a pod that takes longer is
    ended.
    """

    kind: Kind = "job"
    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None
    service_account: str | None = None
    image_pull_secret: str | None = None
    max_restarts: int = 3
    pod_monitor: bool = False
    monitor_labels: Mapping[str, str] = field(default_factory=dict)
    startup_seconds: int = 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options above, by the names that kubectl and Helm have for them."""
    parser.add_argument("--namespace", metavar="NS", help="default: that of the context")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig; default: its current one")
    parser.add_argument(
        "--kubeconfig", type=kubeconfig_files, metavar="FILE", help="default: $KUBECONFIG or ~/.kube/config"
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="job",
        help="job: Indexed Job and headless Service; trainjob: Kubeflow Trainer v2; jobset: JobSet",
    )
    parser.add_argument("--service-account", metavar="NAME", help="of the pods; they get no token of it")
    parser.add_argument("--image-pull-secret", metavar="NAME")
    parser.add_argument(
        "--max-restarts", type=int, default=3, metavar="N", help="of all nodes after failures (%(default)s)"
    )
    parser.add_argument("--pod-monitor", action="store_true", help="for the Prometheus operator")
    parser.add_argument(
        "--pod-monitor-label",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="by which a Prometheus selects PodMonitors: release=kube-prometheus-stack",
    )
    parser.add_argument(
        "--startup-seconds", type=int, default=3600, metavar="N", help="until the first step (%(default)s)"
    )


def kubeconfig_files(text: str) -> Path:
    """One, or several as KUBECONFIG has them; asked again from another folder, they must be the same."""
    return Path(os.pathsep.join(str(Path(each).expanduser().absolute()) for each in text.split(os.pathsep) if each))


def from_arguments(arguments: argparse.Namespace) -> Options:
    """As the parsed command line has them."""
    return Options(
        kind=arguments.kind,
        namespace=arguments.namespace,
        context=arguments.context,
        kubeconfig=arguments.kubeconfig,
        service_account=arguments.service_account,
        image_pull_secret=arguments.image_pull_secret,
        max_restarts=arguments.max_restarts,
        pod_monitor=arguments.pod_monitor,
        monitor_labels=dict(arguments.pod_monitor_label),
        startup_seconds=arguments.startup_seconds,
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text}: write it as KEY=VALUE")
    return key, value
