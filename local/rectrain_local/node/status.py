"""The status of a pod as a kubelet reports it, from what its containers did. Pure; called by `pod`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from .api import Obj

Kind = Literal["init", "sidecar", "main"]
NEVER_STARTED: Final = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
}


def rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerRecord:
    """What is known of one container; its runner changes it, everybody else reads."""

    name: str
    image: str
    kind: Kind
    state: Obj
    last_state: Obj = field(default_factory=dict)
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""
    image_id: str = ""

    @property
    def terminated(self) -> Obj | None:
        return self.state.get("terminated")

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def has_run(self) -> bool:
        return self.running or self.terminated is not None or bool(self.last_state)

    @property
    def succeeded(self) -> bool:
        return self.terminated is not None and self.terminated["exitCode"] == 0

    def as_status(self) -> Obj:
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "state": self.state,
            "lastState": self.last_state,
            "restartCount": self.restart_count,
            "ready": self.ready,
            "started": self.started,
        } | ({"containerID": self.container_id} if self.container_id else {})


@dataclass(frozen=True)
class PodView:
    """All that the status of one pod is made of."""

    pod: Obj
    pod_ip: str
    host_ip: str
    start_time: datetime
    containers: Sequence[ContainerRecord]
    sandbox_ready: bool
    finished: bool
    """No container will run again."""
    failure: tuple[str, str] | None = None
    """Reason and message when the node itself ended the pod."""
    disrupted: str | None = None
    """Message of a DisruptionTarget condition."""


def phase(view: PodView) -> str:
    """Terminal only when nothing will run again, so that the Job controller never counts a pod too early."""
    mains = [one for one in view.containers if one.kind == "main"]
    inits = [one for one in view.containers if one.kind == "init"]
    if view.finished:
        everything_succeeded = all(one.succeeded for one in mains) and all(one.succeeded for one in inits)
        return "Succeeded" if view.failure is None and everything_succeeded else "Failed"
    initialized = _initialized(view)
    return "Running" if initialized and any(one.has_run for one in mains) else "Pending"


def _initialized(view: PodView) -> bool:
    inits = [one for one in view.containers if one.kind != "main"]
    return all(one.succeeded if one.kind == "init" else one.started or one.has_run for one in inits)


def build(view: PodView, previous: Sequence[Obj], now: datetime) -> Obj:
    """The whole status; `previous` conditions keep their transition times where nothing changed."""
    by_kind = [one.as_status() for one in view.containers if one.kind == "main"]
    inits = [one.as_status() for one in view.containers if one.kind != "main"]
    reason, message = view.failure or (None, None)
    status: Obj = {
        "phase": phase(view),
        "reason": reason,
        "message": message,
        "hostIP": view.host_ip,
        "hostIPs": [{"ip": view.host_ip}],
        "startTime": rfc3339(view.start_time),
        "conditions": _dated(_conditions(view), previous, now),
        "containerStatuses": by_kind,
        "observedGeneration": view.pod["metadata"].get("generation"),
    }
    if inits:
        status["initContainerStatuses"] = inits
    if view.pod_ip:
        status |= {"podIP": view.pod_ip, "podIPs": [{"ip": view.pod_ip}]}
    return status


def _conditions(view: PodView) -> list[Obj]:
    mains = [one for one in view.containers if one.kind == "main"]
    over = phase(view) in ("Succeeded", "Failed")
    unready = [one.name for one in mains if not one.ready]
    gates = [gate["conditionType"] for gate in view.pod["spec"].get("readinessGates") or []]
    given = {c["type"] for c in view.pod.get("status", {}).get("conditions") or [] if c["status"] == "True"}
    missing_gates = [gate for gate in gates if gate not in given]
    why: Obj = {}
    if over:
        why = {"reason": "PodCompleted" if phase(view) == "Succeeded" else "PodFailed"}
    elif unready:
        why = {"reason": "ContainersNotReady", "message": f"containers with unready status: {_list(unready)}"}
    ready_why = why
    if not why and missing_gates:
        ready_why = {"reason": "ReadinessGatesNotReady", "message": f"missing: {_list(missing_gates)}"}
    incomplete = [one.name for one in view.containers if one.kind == "init" and not one.succeeded]
    init_why: Obj = {}
    if not _initialized(view):
        init_why = {
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: {_list(incomplete)}",
        }
    conditions = [
        _condition("PodScheduled", {}),
        _condition(
            "PodReadyToStartContainers", {} if view.sandbox_ready and not over else {"reason": "NoSandbox"}
        ),
        _condition("Initialized", init_why),
        _condition("ContainersReady", why),
        _condition("Ready", ready_why),
    ]
    if view.disrupted is not None:
        disruption = {"reason": "TerminationByKubelet", "message": view.disrupted}
        conditions.append({"type": "DisruptionTarget", "status": "True"} | disruption)
    return conditions


def _list(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def _condition(kind: str, why_not: Obj) -> Obj:
    blank = {"reason": None, "message": None}
    return {"type": kind, "status": "False" if why_not else "True"} | blank | why_not


def _dated(conditions: list[Obj], previous: Sequence[Obj], now: datetime) -> list[Obj]:
    before = {one["type"]: one for one in previous}
    for one in conditions:
        old = before.get(one["type"])
        same = old is not None and old["status"] == one["status"]
        one["lastTransitionTime"] = old["lastTransitionTime"] if same and old else rfc3339(now)
    return conditions
