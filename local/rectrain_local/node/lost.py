"""Pods that an earlier agent ran: its death took their processes, so they have failed. Called by `agent`."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from .api import Obj
from .status import rfc3339

LOST: Final = "NodeLost"
NODE_ERROR: Final = "NodeError"
LOST_MESSAGE: Final = "The node agent stopped, and the pod's processes with it, as in a power cut"
EXIT_CODE: Final = 137


def was_running(pod: Obj) -> bool:
    """Whether containers of this pod ran before this agent began."""
    status = pod.get("status") or {}
    both = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return any(
        "running" in one["state"] or "terminated" in one["state"] or one.get("lastState") for one in both
    )


def is_over(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def lost_status(pod: Obj, now: datetime, reason: str = LOST, message: str = LOST_MESSAGE) -> Obj:
    """The status patch that says so; a disruption, since the program was not at fault."""
    status = pod["status"]
    lost = {"reason": reason, "message": message}
    patch: Obj = {
        "phase": "Failed",
        **lost,
        "conditions": [
            {"type": kind, "status": "False", "lastTransitionTime": rfc3339(now)} | lost
            for kind in ("Ready", "ContainersReady", "PodReadyToStartContainers")
        ],
    }
    disruption = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    patch["conditions"].append(disruption | {"message": message, "lastTransitionTime": rfc3339(now)})
    for field in ("containerStatuses", "initContainerStatuses"):
        if field in status:
            patch[field] = [_lost_container(one, now, message) for one in status[field]]
    return patch


def _lost_container(container: Obj, now: datetime, message: str) -> Obj:
    state = container["state"]
    if "terminated" in state:
        return container
    ended = {"exitCode": EXIT_CODE, "reason": "ContainerStatusUnknown", "message": message}
    ended["finishedAt"] = rfc3339(now)
    if "running" in state:
        ended["startedAt"] = state["running"]["startedAt"]
        if container.get("containerID"):
            ended["containerID"] = container["containerID"]
    return container | {"state": {"terminated": ended}, "ready": False, "started": False}
