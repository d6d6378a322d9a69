"""What the operator keeps of a batch/v1 Job and of a pod: the few fields that decisions need.

Parsed once when a watch delivers the object; thousands of them fit into memory.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from rectrain_operator.keys import JobKey, Manifest

JOB_LABEL: Final = "rectrain.dev/job"
JOB_UID_LABEL: Final = "rectrain.dev/job-uid"
"""On pods: a run that was deleted and made again has the same name, and another UID."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "rectrain-operator"
SELECTOR: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
TRAINER: Final = "trainer"


@dataclass(frozen=True)
class Note:
    """A reason and a sentence, as Kubernetes gives them in many places."""

    reason: str
    message: str
    time: str = ""


@dataclass(frozen=True)
class JobView:
    """A batch/v1 Job."""

    name: str
    uid: str
    version: int
    owner_uid: str
    suspend: bool
    backoff_limit: int
    deleting: bool = False
    complete: Note | None = None
    failed: Note | None = None
    completions: int = 1
    """Pods that train together; each has an index."""
    succeeding: Note | None = None
    failing: Note | None = None
    """Its end is decided; it is closed when the pods that are left have stopped."""

    @property
    def finished(self) -> bool:
        """Whether the Job controller has closed it."""
        return self.complete is not None or self.failed is not None

    @property
    def decided(self) -> str:
        """Since when its end is decided; empty while it isn't."""
        target = self.succeeding or self.failing
        return target.time if target else ""


@dataclass(frozen=True)
class Terminated:
    """How the trainer's container ended."""

    exit_code: int
    reason: str
    message: str
    finished_at: str


@dataclass(frozen=True)
class PodView:
    """A pod of a run."""

    name: str
    uid: str
    version: int
    namespace: str
    job_uid: str
    """UID of the batch/v1 Job that owns it."""
    created: str
    index: int
    phase: str
    node: str = ""
    deletion: str = ""
    """deletionTimestamp: when it is to be gone at the latest."""
    running: bool = False
    unheard: str = ""
    """Since when its node hasn't been heard: the control plane, not the kubelet, calls it not ready."""
    terminated: Terminated | None = None
    waiting: Note | None = None
    unschedulable: Note | None = None
    disruption: Note | None = None
    failure: Note | None = None
    """status.reason and status.message of a pod that failed without a container's end."""
    changed: str = ""
    """When one of its conditions last changed; else when it was made."""
    run_uid: str = ""
    """UID of the RecTrainingJob that it was made for; empty in a pod without the label."""
    gone: bool = False
    """Deleted from the API server; this is what was last seen of it."""

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    def as_gone(self) -> "PodView":
        """The same pod after its deletion."""
        return replace(self, gone=True)

    def belongs_to(self, run_uid: str, job_uid: str | None) -> bool:
        """Whether it is of this very run: by its label, or, without one, by the run's current Job."""
        return self.run_uid == run_uid if self.run_uid else self.job_uid == job_uid


def job_key(manifest: Manifest) -> JobKey | None:
    """The run that an object of ours says it belongs to."""
    metadata = manifest["metadata"]
    name = (metadata.get("labels") or {}).get(JOB_LABEL)
    return JobKey(metadata["namespace"], name) if name else None


def controller_uid(manifest: Manifest) -> str:
    """UID of the controlling owner; empty without one."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return next((o["uid"] for o in owners if o.get("controller")), "")


def version_of(manifest: Manifest) -> int:
    """resourceVersion as a number: since Kubernetes 1.35 the API promises that it is one."""
    return int(manifest["metadata"].get("resourceVersion") or 0)


def job_view(manifest: Manifest) -> JobView:
    """What we keep of a Job."""
    metadata, spec = manifest["metadata"], manifest["spec"]
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return JobView(
        name=metadata["name"],
        uid=metadata["uid"],
        version=version_of(manifest),
        owner_uid=controller_uid(manifest),
        suspend=bool(spec.get("suspend")),
        backoff_limit=int(spec.get("backoffLimit", 6)),
        deleting="deletionTimestamp" in metadata,
        complete=_condition(conditions, "Complete"),
        failed=_condition(conditions, "Failed"),
        completions=int(spec.get("completions") or 1),
        succeeding=_condition(conditions, "SuccessCriteriaMet"),
        failing=_condition(conditions, "FailureTarget"),
    )


def pod_view(manifest: Manifest) -> PodView:
    """What we keep of a pod."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    state = _trainer_state(status)
    conditions = status.get("conditions") or []
    unschedulable = _condition(conditions, "PodScheduled", status="False")
    unready = _condition(conditions, "Ready", status="False")
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        version=version_of(manifest),
        namespace=metadata["namespace"],
        job_uid=controller_uid(manifest),
        created=metadata.get("creationTimestamp") or "",
        index=int((metadata.get("labels") or {}).get(INDEX_LABEL) or 0),
        phase=status.get("phase") or "Pending",
        node=manifest["spec"].get("nodeName") or "",
        deletion=metadata.get("deletionTimestamp") or "",
        running="running" in state,
        # A kubelet gives a reason (ContainersNotReady, PodCompleted); the node controller gives none.
        unheard=unready.time if unready and not unready.reason else "",
        terminated=_terminated(state),
        waiting=_note(state.get("waiting")),
        unschedulable=unschedulable if unschedulable and unschedulable.reason == "Unschedulable" else None,
        disruption=_condition(conditions, "DisruptionTarget"),
        failure=_note(status) if status.get("phase") == "Failed" and status.get("reason") else None,
        changed=max((c.get("lastTransitionTime") or "" for c in conditions), default="")
        or metadata.get("creationTimestamp")
        or "",
        run_uid=(metadata.get("labels") or {}).get(JOB_UID_LABEL) or "",
    )


def _trainer_state(status: Manifest) -> Manifest:
    for container in status.get("containerStatuses") or []:
        if container.get("name") == TRAINER:
            return container.get("state") or {}
    return {}


def _terminated(state: Manifest) -> Terminated | None:
    ended = state.get("terminated")
    if ended is None:
        return None
    return Terminated(
        exit_code=int(ended.get("exitCode", 0)),
        reason=ended.get("reason") or "",
        message=ended.get("message") or "",
        finished_at=ended.get("finishedAt") or "",
    )


def _note(part: Manifest | None) -> Note | None:
    if not part:
        return None
    return Note(part.get("reason") or "", part.get("message") or "")


def _condition(conditions: list[dict[str, Any]], kind: str, *, status: str = "True") -> Note | None:
    for one in conditions:
        if one.get("type") == kind and one.get("status") == status:
            return Note(
                one.get("reason") or "", one.get("message") or "", one.get("lastTransitionTime") or ""
            )
    return None
