"""Which cluster, which namespace: from a kubeconfig, or from the pod that this runs in."""

from pathlib import Path
from typing import Any

from deploy.submit.errors import SubmitError
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import MISSING_CLIENT
from deploy.submit.k8s.options import Options

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(options: Options) -> Cluster:
    """Nothing is sent yet. Raises SubmitError where there is no client, no configuration, no such context."""
    try:
        from kubernetes import client
    except ImportError:
        raise SubmitError(MISSING_CLIENT) from None
    configuration = client.Configuration()
    configuration.retries = 0  # urllib3 would tell of each try by itself
    namespace = _configure(configuration, options)
    return Cluster(client.ApiClient(configuration), options.namespace or namespace)


def _configure(configuration: Any, options: Options) -> str:
    """The namespace that goes with it."""
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
        return OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except (yaml.YAMLError, OSError, TypeError, ValueError, KeyError) as error:
        raise SubmitError(_said(error, options)) from None
    chosen = next((each for each in contexts if each["name"] == options.context), current)
    return str(chosen["context"].get("namespace") or "default")


def _said(error: Exception, options: Options) -> str:
    where = f"kubeconfig {options.kubeconfig}" if options.kubeconfig else "kubeconfig"
    context = f", context {options.context}" if options.context else ""
    return f"{where}{context}: {' '.join(str(error).split())}; give another one by --kubeconfig and --context"
