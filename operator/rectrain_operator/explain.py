"""The phase of a run and the sentence beside it, from what its pod shows. Pure. Called by `decide`."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rectrain_api.report import Stage
from rectrain_api.status import Interruption, Phase, Reason
from rectrain_operator.times import elapsed_s, from_text, to_text
from rectrain_operator.views import Note, PodView

_PREPARING: Final = frozenset({None, Stage.STAGING.value, Stage.CHECKING.value})
_HARMLESS_WAITS: Final = frozenset({"ContainerCreating", "PodInitializing", ""})
_IMAGE_WAITS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
NO_POD_PATIENCE_S: Final = 30.0
BACKOFF_FIRST_S: Final = 10.0
BACKOFF_LONGEST_S: Final = 600.0
CONFIRMING: Final = timedelta(seconds=10)
"""A kubelet that lives says within this time that a pod has gone."""
_STAGE_SENTENCES: Final = {
    Stage.STAGING.value: "Fetching the data from S3.",
    Stage.CHECKING.value: "Checking the data.",
    Stage.TRAINING.value: "Training.",
    Stage.EVALUATING.value: "Evaluating.",
    Stage.EXPORTING.value: "Exporting the model.",
    Stage.FINISHED.value: "Finished; waiting for the pod to end.",
}


@dataclass(frozen=True)
class Explanation:
    """Where the run is, and why."""

    phase: Phase
    reason: str
    message: str
    look_again_s: float | None = None
    idle: bool = False
    """Nothing is trained, whatever the last report said."""


def explain_pod(
    pod: PodView, *, stage: str | None, said: str, interrupted: Interruption | None, now: datetime
) -> Explanation:
    """A run with a pod that hasn't ended. `said` is the sentence of its last report."""
    lost = node_lost(pod, now)
    if lost is not None:
        return lost
    if pod.running:
        if stage in _PREPARING:
            reason = Reason.CHECKING if stage == Stage.CHECKING.value else Reason.STAGING
            default = _STAGE_SENTENCES.get(stage or "", "The trainer is starting.")
            return Explanation(Phase.PREPARING, reason, said or default)
        return Explanation(Phase.RUNNING, Reason.TRAINING, said or _STAGE_SENTENCES[str(stage)])
    phase = Phase.RESTARTING if interrupted else Phase.PENDING
    why, message = _why_waiting(pod)
    if interrupted and _resuming(interrupted):
        message = f"Resuming. {message}"
    elif interrupted:
        message = f"{message} (The last pod ended: {interrupted.reason}.)"
    return Explanation(phase, why, message)


def node_lost(pod: PodView, now: datetime) -> Explanation | None:
    """A pod on a node that nobody hears: training may still go on there, so nothing replaces it yet.

    Kubernetes deletes such a pod after a while (five minutes by default), but only its kubelet can confirm
    that it is gone; with podReplacementPolicy Failed the Job waits for that.
    """
    due = from_text(pod.deletion)
    if pod.node and due is not None and now > due + CONFIRMING:
        message = (
            f"Node {pod.node} doesn't confirm that the pod is gone, so it isn't replaced. If it is lost, "
            f"`kubectl delete node {pod.node}`; if its machine is surely off: `kubectl taint node {pod.node} "
            "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`. The run then resumes elsewhere."
        )
        return Explanation(Phase.RESTARTING, Reason.NODE_LOST, message)
    if pod.running and pod.unheard:
        until = f" Kubernetes gives the pod until {pod.deletion}." if pod.deletion else ""
        message = (
            f"Node {pod.node} hasn't been heard since {pod.unheard}.{until} If its machine is gone, "
            f"`kubectl delete node {pod.node}` lets the run resume elsewhere at once."
        )
        again_s = (due + CONFIRMING - now).total_seconds() + 1 if due else None
        return Explanation(Phase.RUNNING, Reason.NODE_LOST, message, again_s)
    return None


def explain_no_pod(
    *, interrupted: Interruption | None, ends: int, started: str | None, now: datetime
) -> Explanation:
    """A run whose Job has no pod just now: the first isn't made yet, or the next one waits its turn."""
    if interrupted is None:
        waited_s = elapsed_s(started, now) if started else 0.0
        if waited_s < NO_POD_PATIENCE_S:
            message = "Waiting for the Job controller to make the pod."
            return Explanation(
                Phase.PENDING, Reason.WAITING_FOR_POD, message, NO_POD_PATIENCE_S - waited_s + 1
            )
        message = (
            "The Job controller hasn't made the pod: a quota, an admission policy or a missing service "
            "account may forbid it; `kubectl describe job` of this name says which."
        )
        return Explanation(Phase.PENDING, Reason.WAITING_FOR_POD, message)
    if _resuming(interrupted):
        message = "Resuming from the last checkpoint: waiting for the Job controller to make the pod."
        return Explanation(Phase.RESTARTING, Reason.RESUMED, message)
    until = _next_pod_at(interrupted, ends)
    left_s = (until - now).total_seconds() if until else 0.0
    message = f"Restarting after {interrupted.reason}: {interrupted.message}"
    if until and left_s > 0:
        message += f" The next pod starts at about {to_text(until)}."
        return Explanation(Phase.RESTARTING, Reason.RESTARTING, message, left_s + 1)
    return Explanation(Phase.RESTARTING, Reason.RESTARTING, message)


def _resuming(last: Interruption) -> bool:
    """A suspend costs no back-off, and is no fault."""
    return last.reason == Reason.SUSPEND_REQUESTED


def _next_pod_at(last: Interruption, ends: int) -> datetime | None:
    """When the Job controller's back-off ends: 10 s, doubled by each end, 10 minutes at most."""
    ended = from_text(last.time)
    delay_s = min(BACKOFF_FIRST_S * 2 ** min(max(ends, 1) - 1, 10), BACKOFF_LONGEST_S)
    return ended + timedelta(seconds=delay_s) if ended else None


def _why_waiting(pod: PodView) -> tuple[str, str]:
    waiting: Note | None = pod.waiting
    if waiting is None or waiting.reason in _HARMLESS_WAITS:
        if pod.node:
            return Reason.WAITING_FOR_POD, f"Node {pod.node} is starting the pod."
        if pod.unschedulable is not None:
            return Reason.UNSCHEDULABLE, f"No node fits the pod: {pod.unschedulable.message}"
        return Reason.WAITING_FOR_POD, "Waiting for a node."
    if waiting.reason in _IMAGE_WAITS:
        return (
            Reason.IMAGE_UNAVAILABLE,
            f"The trainer's image can't be had ({waiting.reason}): {waiting.message} "
            "Set replicas.image, or replicas.imagePullSecrets for a private registry.",
        )
    way_out = ""
    if waiting.message.startswith(("configmap ", "couldn't find key ")):
        way_out = (
            ". Create the ConfigMap that model.config names, with its key; the pod then starts by itself."
        )
    elif waiting.message.startswith("secret "):
        way_out = (
            ". Create the Secret that s3.credentialsSecret names, with AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; the pod then starts by itself."
        )
    return Reason.CONTAINER_WAITING, f"The pod can't start ({waiting.reason}): {waiting.message}{way_out}"
