"""What Kubernetes takes as a name, a label and a variable."""

import re

LONGEST = 63  # of a label, of which host names are made

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_PORT = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def is_label(text: str) -> bool:
    """RFC 1123 label: of pods, Jobs, hosts, namespaces."""
    return len(text) <= LONGEST and _LABEL.fullmatch(text) is not None


def is_service(text: str) -> bool:
    """RFC 1035 label: Services begin with a letter."""
    return len(text) <= LONGEST and _SERVICE.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """RFC 1123 subdomain: of claims, secrets, service accounts."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def is_label_key(text: str) -> bool:
    """``name`` or ``prefix/name``."""
    prefix, slash, name = text.rpartition("/")
    return (is_subdomain(prefix) if slash else True) and bool(name) and is_label_value(name)


def is_label_value(text: str) -> bool:
    """What a label may say, also nothing."""
    return len(text) <= LONGEST and _VALUE.fullmatch(text) is not None


def is_port(text: str) -> bool:
    """IANA service name."""
    return len(text) <= 15 and _PORT.fullmatch(text) is not None


def is_variable(text: str) -> bool:
    """Of an environment."""
    return _VARIABLE.fullmatch(text) is not None


def is_secret_key(text: str) -> bool:
    """Of a Secret's or ConfigMap's data."""
    return len(text) <= 253 and _SECRET_KEY.fullmatch(text) is not None
