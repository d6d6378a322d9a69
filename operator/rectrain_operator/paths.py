"""Paths of the API server, for the kinds that we touch."""

from urllib.parse import quote

from rectrain_api import API_VERSION, GROUP, PLURAL
from rectrain_operator.keys import JobKey, Manifest

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
API_OF_OURS = f"/apis/{GROUP}/{API_VERSION}"
_CORE = {"ConfigMap": "configmaps", "Secret": "secrets", "Service": "services", "Pod": "pods"}
_PREFIX = {**dict.fromkeys(_CORE, "/api/v1"), "Job": "/apis/batch/v1"}
_PLURAL = {**_CORE, "Job": "jobs"}


def runs(namespace: str | None = None) -> str:
    """All RecTrainingJobs, or those of a namespace."""
    return f"{API_OF_OURS}{_place(namespace)}/{PLURAL}"


def run(key: JobKey) -> str:
    """One RecTrainingJob."""
    return f"{runs(key.namespace)}/{_part(key.name)}"


def run_status(key: JobKey) -> str:
    """Its status subresource."""
    return f"{run(key)}/status"


def collection(kind: str, namespace: str | None) -> str:
    """All objects of a kind, or those of a namespace."""
    return f"{_PREFIX[kind]}{_place(namespace)}/{_PLURAL[kind]}"


def single(kind: str, namespace: str, name: str) -> str:
    """One object."""
    return f"{collection(kind, namespace)}/{_part(name)}"


def siblings(manifest: Manifest) -> str:
    """Where an object like this one is created."""
    return collection(manifest["kind"], manifest["metadata"]["namespace"])


def itself(manifest: Manifest) -> str:
    """Where an object like this one stands."""
    return single(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def events(namespace: str) -> str:
    """Events of a namespace."""
    return f"/apis/events.k8s.io/v1{_place(namespace)}/events"


def _place(namespace: str | None) -> str:
    return f"/namespaces/{_part(namespace)}" if namespace else ""


def _part(name: str) -> str:
    """One part of a path, whatever is in it."""
    return quote(name, safe="")
