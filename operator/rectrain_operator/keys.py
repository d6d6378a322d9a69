"""How a run is named inside the operator: namespace and name. Used as key of queue, cache and logs."""

import re
from typing import Any, Final, NamedTuple

Manifest = dict[str, Any]
"""A Kubernetes object as plain JSON."""


_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE: Final = re.compile(_LABEL)
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_NAME: Final = 253


class JobKey(NamedTuple):
    """One RecTrainingJob, by where it stands."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(manifest: Manifest) -> JobKey:
    """The key of any object, by its own metadata."""
    metadata = manifest["metadata"]
    return JobKey(metadata["namespace"], metadata["name"])


def is_name(key: JobKey) -> bool:
    """Whether Kubernetes can have an object there: a DNS label, and a DNS subdomain."""
    fits = _NAMESPACE.fullmatch(key.namespace) and _NAME.fullmatch(key.name)
    return bool(fits) and len(key.name) <= _LONGEST_NAME
