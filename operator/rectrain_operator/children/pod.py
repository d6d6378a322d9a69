"""A pod that trains: what `rectrain-trainer run` finds when it starts, and what it may not do.

The trainer is written to exactly this: paths, environment names and mounts. The pod meets the *restricted*
Pod Security Standard and has no permission in Kubernetes: its only token is for our report server.
"""

from typing import Any, Final

from rectrain_api.plan import WORK_RESERVE_BYTES, PlanFrame, cache_bytes
from rectrain_api.report import report_audience
from rectrain_api.spec import RecTrainingJob, ResourcesSpec
from rectrain_operator.children.names import CA_KEY, PLAN_KEY, ca_name, labels_of, plan_name
from rectrain_operator.settings import PodSettings
from rectrain_operator.views import INDEX_LABEL, JOB_UID_LABEL, TRAINER

USER: Final = 65532
WORK_DIR: Final = "/var/lib/rectrain"
CACHE_DIR: Final = "/var/cache/rectrain"
PLAN_DIR: Final = "/etc/rectrain/plan"
CA_DIR: Final = "/etc/rectrain/ca"
TOKEN_DIR: Final = "/var/run/secrets/rectrain"  # noqa: S105 - a path
TOKEN_SECONDS: Final = 3600
CONTROLLER_UID: Final = "metadata.labels['batch.kubernetes.io/controller-uid']"
RANK: Final = f"metadata.labels['{INDEX_LABEL}']"
OURS_AMONG_SEVERAL: Final = frozenset({"RECTRAIN_RANK", "RECTRAIN_PEERS", "RECTRAIN_POD_IP"})
"""Kept from `replicas.env` in a run of one pod too, which must not take itself for one of several."""
MODEL_CONFIG: Final = "RECTRAIN_MODEL_CONFIG"


def pod_template(job: RecTrainingJob, plan: PlanFrame, settings: PodSettings) -> dict[str, Any]:
    """template of the Job."""
    replicas, name = job.spec.replicas, job.metadata.name
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "subdomain": name,
        "terminationGracePeriodSeconds": plan.termination_grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, plan, settings)],
        "volumes": _volumes(job),
    }
    optional = {
        "nodeSelector": replicas.node_selector,
        "tolerations": [t.to_dict() for t in replicas.tolerations],
        "serviceAccountName": replicas.service_account_name,
        "priorityClassName": replicas.priority_class_name,
        "imagePullSecrets": [s.to_dict() for s in replicas.image_pull_secrets],
    }
    spec |= {key: value for key, value in optional.items() if value}
    metadata: dict[str, Any] = {
        "labels": {**replicas.labels, **labels_of(name), JOB_UID_LABEL: job.metadata.uid}
    }
    if replicas.annotations:
        metadata["annotations"] = dict(replicas.annotations)
    return {"metadata": metadata, "spec": spec}


def _container(job: RecTrainingJob, plan: PlanFrame, settings: PodSettings) -> dict[str, Any]:
    replicas = job.spec.replicas
    container: dict[str, Any] = {
        "name": TRAINER,
        "image": replicas.image or settings.trainer_image,
        "command": ["rectrain-trainer", "run", "--plan", f"{PLAN_DIR}/{PLAN_KEY}"],
        "env": _environment(job, plan, settings),
        "resources": _resources(replicas.resources, replicas.gpu_resource, replicas.gpus_per_node),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "plan", "mountPath": PLAN_DIR, "readOnly": True},
            {"name": "ca", "mountPath": CA_DIR, "readOnly": True},
            {"name": "token", "mountPath": TOKEN_DIR, "readOnly": True},
            {"name": "work", "mountPath": WORK_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - inside the pod
        ],
    }
    if _claim(job):
        container["volumeMounts"].append({"name": "cache", "mountPath": CACHE_DIR})
    if secret := job.spec.s3.credentials_secret:
        # By envFrom, so that a missing Secret is the pod's waiting reason, which status shows.
        container["envFrom"] = [{"secretRef": {"name": secret.name}}]
    return container


def _environment(job: RecTrainingJob, plan: PlanFrame, settings: PodSettings) -> list[dict[str, Any]]:
    fields = {
        "RECTRAIN_JOB_UID": CONTROLLER_UID,
        "RECTRAIN_POD_UID": "metadata.uid",
        "RECTRAIN_POD_NAME": "metadata.name",
        "RECTRAIN_NODE": "spec.nodeName",
    }
    values = {
        "HOME": "/tmp",  # noqa: S108 - inside the pod; the root is read-only
        "RECTRAIN_NAMESPACE": job.metadata.namespace,
        "RECTRAIN_NAME": job.metadata.name,
        "RECTRAIN_WORK_DIR": WORK_DIR,
        **({"RECTRAIN_CACHE_DIR": CACHE_DIR} if _claim(job) else {}),
        "RECTRAIN_REPORT_URL": settings.report_url,
        "RECTRAIN_REPORT_CA": f"{CA_DIR}/{CA_KEY}",
        "RECTRAIN_TOKEN_FILE": f"{TOKEN_DIR}/token",
    }
    if plan.nodes > 1:
        fields |= {"RECTRAIN_RANK": RANK, "RECTRAIN_POD_IP": "status.podIP"}
        values["RECTRAIN_PEERS"] = ",".join(_peers(job, plan.nodes))
    kept = {*fields, *values, *OURS_AMONG_SEVERAL, MODEL_CONFIG}
    theirs = [e.to_dict() for e in job.spec.replicas.env if e.name not in kept]
    ours: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in values.items()]
    ours += [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    return [*theirs, *ours, *_model_config(job)]


def _model_config(job: RecTrainingJob) -> list[dict[str, Any]]:
    """The text of a config of PaddleOCR. As a variable, a missing ConfigMap or key is the pod's waiting
    reason, which status shows; and an attempt sees one text to its end."""
    config = job.spec.model.config
    if config is None or config.config_map is None:
        return []
    return [{"name": MODEL_CONFIG, "valueFrom": {"configMapKeyRef": config.config_map.to_dict()}}]


def _peers(job: RecTrainingJob, nodes: int) -> list[str]:
    """Names of all pods in the order of their ranks. A pod that replaces another has the same name."""
    name, namespace = job.metadata.name, job.metadata.namespace
    return [f"{name}-{index}.{name}.{namespace}.svc" for index in range(nodes)]


def _resources(spec: ResourcesSpec, gpu_resource: str, gpus: int) -> dict[str, Any]:
    requests, limits = dict(spec.requests), dict(spec.limits)
    if gpus > 0:
        limits[gpu_resource] = requests[gpu_resource] = str(gpus)
    return {k: v for k, v in (("requests", requests), ("limits", limits)) if v}


def _volumes(job: RecTrainingJob) -> list[dict[str, Any]]:
    name = job.metadata.name
    cache = cache_bytes(job.spec.data.cache)
    work = {} if cache is None else {"sizeLimit": str(cache + WORK_RESERVE_BYTES)}
    token = {
        "audience": report_audience(job.metadata.uid),
        "expirationSeconds": TOKEN_SECONDS,
        "path": "token",
    }
    claim = _claim(job)
    shared = [{"name": "cache", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    return [
        *shared,
        {"name": "plan", "configMap": {"name": plan_name(name)}},
        {"name": "ca", "configMap": {"name": ca_name(name)}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "work", "emptyDir": work},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]


def _claim(job: RecTrainingJob) -> str | None:
    """The volume of staged data that this run shares with others."""
    return job.spec.data.cache.claim_name if job.spec.data.cache else None
