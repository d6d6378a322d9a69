"""Names, labels and owners that all children share. Derived from the run: repeating is harmless."""

from typing import Any, Final

from rectrain_api import API_VERSION, GROUP, KIND
from rectrain_api.spec import RecTrainingJob
from rectrain_operator.views import JOB_LABEL, MANAGED_BY, MANAGED_BY_LABEL

PLAN_KEY: Final = "run.json"
CA_KEY: Final = "ca.crt"


def plan_name(run: str) -> str:
    """Name of the ConfigMap with the run plan."""
    return f"{run}-run"


def ca_name(run: str) -> str:
    """Name of the ConfigMap with the CA of the report server."""
    return f"{run}-ca"


def labels_of(run: str) -> dict[str, str]:
    """Labels by which our watches find a child."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        "app.kubernetes.io/name": "rectrain",
        "app.kubernetes.io/component": "training",
        JOB_LABEL: run,
    }


def metadata_of(job: RecTrainingJob, name: str) -> dict[str, Any]:
    """metadata of a child: owned, so that garbage collection deletes it with the run."""
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels_of(job.metadata.name),
        "ownerReferences": [
            {
                "apiVersion": f"{GROUP}/{API_VERSION}",
                "kind": KIND,
                "name": job.metadata.name,
                "uid": job.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
