"""Since when nothing was committed: the condition CheckpointStale, its sentence and its Event. Pure.

Called by `decide`. What a pod last said holds until the next pod speaks, or a commit follows: that the pod is
gone doesn't bring S3 back. A run that is suspended or has ended commits nothing, so it can't be late.
"""

from rectrain_api.status import ConditionType, Reason, RecTrainingJobStatus, nothing_since
from rectrain_operator.conditions import Conditions
from rectrain_operator.progress import without_stale
from rectrain_operator.seen import EventNote


def set_stale(conditions: Conditions, status: RecTrainingJobStatus, *, said: str) -> str:
    """Set the condition; returns its sentence while it holds, else nothing. `said` is the report's own."""
    kind = ConditionType.CHECKPOINT_STALE
    saved = status.checkpoint
    if saved is not None and saved.stale is not None:
        message, old = nothing_since(saved.stale.since), conditions.get(kind)
        opening = message.rstrip(".")
        if said:
            message = said if said.startswith(opening) else nothing_since(saved.stale.since, said)
        elif old is not None and old.message.startswith(opening):
            message = old.message  # said by a pod that is gone, or before a restart of ours
        conditions.set(kind, True, saved.stale.reason, message)
        return message
    if saved is not None and saved.latest is not None:
        message = f"Nothing waits; the newest checkpoint is of step {saved.latest.step}."
        conditions.set(kind, False, Reason.COMMITTED, message)
    elif conditions.has(kind):
        conditions.set(kind, False, Reason.NONE_YET, "Nothing waits, and there is no checkpoint yet.")
    return ""


def at_rest(status: RecTrainingJobStatus) -> RecTrainingJobStatus:
    """Status of a run that is suspended or has ended."""
    return status.model_copy(update={"checkpoint": without_stale(status.checkpoint)})


def stale_events(
    old: RecTrainingJobStatus, conditions: Conditions, status: RecTrainingJobStatus
) -> tuple[EventNote, ...]:
    """A Warning when it turns True; since the same moment it is said once."""
    kind = ConditionType.CHECKPOINT_STALE
    was = any(c.type == kind and c.status == "True" for c in old.conditions)
    now = conditions.get(kind)
    stale = status.checkpoint.stale if status.checkpoint else None
    if was or now is None or stale is None:
        return ()
    return (EventNote("Warning", kind, now.message, f"stale-{stale.since}"),)
