"""Run plans for tests: small, and from a manifest as every real one is."""

from typing import Any

from rectrain_api.plan import RunPlan, plan
from rectrain_api.spec import RecTrainingJob


def make_manifest(
    *,
    name: str = "digits",
    train: str = "s3://data/digits",
    uri: str = "s3://runs/digits",
    epochs: int = 2,
    batch_size: int = 16,
    interval: int | str = 5,
    resume: str = "Auto",
    workers: int | None = 0,
    **sections: dict[str, Any],
) -> dict[str, Any]:
    """A manifest as a dict; sections are merged over it."""
    spec: dict[str, Any] = {
        "model": {"preset": "svtr_nano"},
        "data": {"train": train},
        "training": {"epochs": epochs, "batchSize": batch_size, "workers": workers},
        "checkpoint": {"uri": uri, "interval": interval, "resume": resume},
        "replicas": {"gpusPerNode": 0},
        "export": {"onnx": False},  # it takes seconds
    }
    for section, fields in sections.items():
        spec[section] = spec.get(section, {}) | fields
    return {
        "apiVersion": "rectrain.dev/v1alpha1",
        "kind": "RecTrainingJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def make_plan(**changes: Any) -> RunPlan:
    """The plan of `make_manifest(**changes)`."""
    return plan(RecTrainingJob.model_validate(make_manifest(**changes)))
