"""Which cluster, which namespace: from a kubeconfig, or from the pod that this runs in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.submit.errors import SubmitError
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import MISSING_CLIENT
from deploy.submit.k8s.options import Options, kubeconfig_files

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(options: Options) -> Cluster:
    """Nothing is sent yet. Raises SubmitError where there is no client, no configuration, no such context."""
    configuration, found = _configured(options)
    from kubernetes import client

    assert found.namespace is not None, "every context has one"
    is_default = found.kubeconfig == kubeconfig_files("~/.kube/config")
    words = [
        word
        for option, value in (
            ("--kubeconfig", None if is_default else found.kubeconfig),
            ("--context", found.context),
            ("--namespace", found.namespace),
        )
        if value is not None
        for word in (option, str(value))
    ]
    return Cluster(client.ApiClient(configuration), found.namespace, ("kubectl", *words))


def located(options: Options) -> Options:
    """With context, namespace and kubeconfig as they are found now: tomorrow others may be the current ones."""
    return _configured(options)[1]


def _configured(options: Options) -> tuple[Any, Options]:
    try:
        from kubernetes import client
    except ImportError:
        raise SubmitError(MISSING_CLIENT) from None
    configuration = client.Configuration()
    configuration.retries = 0  # urllib3 would tell of each try by itself
    return configuration, _configure(configuration, options)


def _configure(configuration: Any, options: Options) -> Options:
    import yaml
    from kubernetes import config

    file = str(options.kubeconfig) if options.kubeconfig else None
    try:
        config.load_kube_config(config_file=file, context=options.context, client_configuration=configuration)
        contexts, current = config.list_kube_config_contexts(config_file=file)
    except config.ConfigException as error:
        if file or options.context or not OWN_NAMESPACE.exists():
            raise SubmitError(_said(error, options)) from None
        config.load_incluster_config(client_configuration=configuration)
        return replace(options, namespace=options.namespace or OWN_NAMESPACE.read_text(encoding="utf-8").strip())
    except (yaml.YAMLError, OSError, TypeError, ValueError, KeyError) as error:
        raise SubmitError(_said(error, options)) from None
    chosen = next((each for each in contexts if each["name"] == options.context), current)
    return replace(
        options,
        context=chosen["name"],
        namespace=options.namespace or str(chosen["context"].get("namespace") or "default"),
        kubeconfig=options.kubeconfig or kubeconfig_files(config.KUBE_CONFIG_DEFAULT_LOCATION),
    )


def _said(error: Exception, options: Options) -> str:
    where = f"kubeconfig {options.kubeconfig}" if options.kubeconfig else "kubeconfig"
    context = f", context {options.context}" if options.context else ""
    return (
        f"{where}{context}: {' '.join(str(error).split()).rstrip('.')}; give another one by --kubeconfig and --context"
    )
