"""How a run ended: the final status from the closed Job and its last pod. Pure. Called by `decide`."""

from typing import Any

from rectrain_api.exit_codes import codes_with
from rectrain_api.status import ConditionType, Phase, Reason, RecTrainingJobStatus
from rectrain_operator.conditions import Conditions
from rectrain_operator.data_policy import set_data_refused
from rectrain_operator.epochs_policy import too_late
from rectrain_operator.failure_policy import PodEnd
from rectrain_operator.progress import finished, with_result, without_pod
from rectrain_operator.seen import Seen
from rectrain_operator.views import JobView

BACKOFF_EXCEEDED = "BackoffLimitExceeded"


def keep_words(
    status: RecTrainingJobStatus, conditions: Conditions, ends: tuple[PodEnd, ...]
) -> RecTrainingJobStatus:
    """Last words of a success are kept as soon as they are read: the pod may go before its Job is closed.

    Until then the condition Succeeded is False, with the reason and sentence that it will have. Only index 0
    has such words: that another pod ends well isn't the end of the run.
    """
    for end in ends:
        if end.cause == "success" and end.result is not None and end.pod.index == 0:
            status = with_result(status, end.result)
            message = end.result.message or _summary(status)
            conditions.set(ConditionType.SUCCEEDED, False, end.result.reason, message)
    return status


def succeeded(
    status: RecTrainingJobStatus,
    conditions: Conditions,
    seen: Seen,
    batch: JobView,
    end: PodEnd | None,
    now: str,
) -> RecTrainingJobStatus:
    """The Job is complete."""
    where = _place(seen)
    if end is not None and end.result is not None:
        status = with_result(status, end.result)
        reason, message = end.result.reason, end.result.message or _summary(status)
    elif (kept := conditions.get(ConditionType.SUCCEEDED)) is not None:
        reason, message = kept.reason, kept.message
    else:
        reason = Reason.RESULT_UNREAD
        message = (
            "The run is complete, but its pod went before its result was read: "
            f"model and report lie in {where}/export and {where}/report."
        )
    if reason != Reason.RESULT_UNREAD and (late := too_late(seen.run, status)):
        message = f"{message} {late}"
    conditions.set(ConditionType.SUCCEEDED, True, reason, message)
    time = batch.complete.time if batch.complete and batch.complete.time else now
    return _ended(status, conditions, Phase.SUCCEEDED, message, time).model_copy(
        update={"progress": finished(status.progress, told=reason != Reason.RESULT_UNREAD)}
    )


def failed(
    status: RecTrainingJobStatus,
    conditions: Conditions,
    seen: Seen,
    batch: JobView,
    end: PodEnd | None,
    now: str,
) -> RecTrainingJobStatus:
    """The Job has failed: in the trainer's own words where there are any."""
    assert batch.failed is not None
    if end is not None and end.result is not None and end.pod.index == 0:
        status = with_result(status, end.result)
    reason, message = _failure(seen, batch, end)
    time = batch.failed.time or now
    return refused(status, conditions, reason, message, time)


def refused(
    status: RecTrainingJobStatus, conditions: Conditions, reason: str, message: str, time: str
) -> RecTrainingJobStatus:
    """Failed for a reason of its own, with or without a Job."""
    conditions.set(ConditionType.FAILED, True, reason, message)
    set_data_refused(conditions, reason, message)
    return _ended(status, conditions, Phase.FAILED, message, time).model_copy(
        update={"progress": without_pod(status.progress)}
    )


def _failure(seen: Seen, batch: JobView, end: PodEnd | None) -> tuple[str, str]:
    assert batch.failed is not None
    if end is None or end.cause == "success":
        where = _place(seen)
        return Reason.RESULT_UNREAD, (
            f"The run failed ({batch.failed.reason}: {batch.failed.message}) and its pod went before its "
            f"words were read: its log lies in {where}/attempts."
        )
    if batch.failed.reason != BACKOFF_EXCEEDED or end.exit_code in codes_with("FailJob"):
        return end.reason, end.message
    allowed = batch.backoff_limit
    given_up = "no restart is allowed" if allowed == 0 else f"after {allowed} restarts"
    return Reason.RESTARTS_EXHAUSTED, (
        f"Given up: {given_up} (runPolicy.maxRestarts: {allowed}). The last attempt ended with "
        f"{end.reason}: {end.message}"
    )


def _ended(
    status: RecTrainingJobStatus, conditions: Conditions, phase: Phase, message: str, time: str
) -> RecTrainingJobStatus:
    conditions.set(ConditionType.RUNNING, False, Reason.NOT_RUNNING, "The run has ended.")
    if conditions.holds(ConditionType.SUSPENDED):
        conditions.set(ConditionType.SUSPENDED, False, Reason.NOT_RUNNING, "The run has ended.")
    update: dict[str, Any] = {
        "phase": phase,
        "message": message[:4096],
        "completion_time": time,
        "conditions": conditions.result(),
    }
    return status.model_copy(update=update)


def _summary(status: RecTrainingJobStatus) -> str:
    words = "Trained"
    if status.progress and status.progress.epochs:
        words += f" {status.progress.epoch} epochs ({status.progress.steps:,} steps)"
    if status.metrics and status.metrics.accuracy_text:
        words += f", accuracy {status.metrics.accuracy_text}"
    if status.model:
        words += f"; the model lies in {status.model.uri}"
    return words + "."


def _place(seen: Seen) -> str:
    checkpoint = (seen.run.get("spec") or {}).get("checkpoint") or {}
    return str(checkpoint.get("uri", "")).rstrip("/")
