"""`decide`: from what is seen of one run to what to do and what status to show. Pure.

Called by `reconcile`, any number of times, in any order, after any crash; asked again with the same `Seen`
it answers the same. The policies are in files of their own: `failure_policy`, `suspend_policy`,
`epochs_policy`, `stale_policy`, `stall_policy`, `explain`, `outcome`, `progress`.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from rectrain_api.errors import InvalidSpec
from rectrain_api.plan import write_plan
from rectrain_api.report import ProgressReport, Stage
from rectrain_api.spec import RecTrainingJob
from rectrain_api.status import TERMINAL, ConditionType, Phase, Reason, RecTrainingJobStatus
from rectrain_operator import epochs_policy, outcome
from rectrain_operator.children import children_of
from rectrain_operator.conditions import Conditions
from rectrain_operator.data_policy import set_data_ready
from rectrain_operator.explain import Explanation, explain_no_pod, explain_pod
from rectrain_operator.failure_policy import Ledger, PodEnd, classify, count, to_blame
from rectrain_operator.gang import current_pod, explain_gang, pods_left
from rectrain_operator.keys import Manifest
from rectrain_operator.pretrained import source_missing, with_source
from rectrain_operator.progress import with_report, without_pod
from rectrain_operator.seen import Decision, EventNote, Seen
from rectrain_operator.stale_policy import at_rest, set_stale, stale_events
from rectrain_operator.stall_policy import set_stalled, stall_events
from rectrain_operator.suspend_policy import job_patch, suspend_phase
from rectrain_operator.times import to_text
from rectrain_operator.views import PodView

DEFAULT_MAX_RESTARTS: Final = 3
REFUSED_AGAIN_S: Final = 30.0
DELETING_AGAIN_S: Final = 2.0
_CHECKED: Final = frozenset({Stage.TRAINING, Stage.EVALUATING, Stage.EXPORTING, Stage.FINISHED})


def decide(seen: Seen, now: datetime) -> Decision:
    """What to do about one run."""
    status = seen.status
    if status.phase in TERMINAL or "deletionTimestamp" in seen.run["metadata"]:
        return Decision(status)
    conditions = _conditions(seen, now)
    seen = with_source(seen)
    missing = source_missing(seen)
    if missing is not None and seen.batch is None:
        return _refused(replace(seen, refusal=missing), conditions, (), now)
    children: tuple[Manifest, ...] = ()
    if seen.refusal is not None or _lacks_children(seen):
        try:
            children = _missing_children(seen)
        except (InvalidSpec, ValidationError) as invalid:
            if seen.batch is None:
                return _reject(seen, conditions, Reason.INVALID_SPEC, _sentence(invalid), now)
    if seen.refusal is not None and seen.batch is None:
        return _refused(seen, conditions, children, now)
    if seen.batch is None:
        return replace(_waiting_for_job(seen, conditions, now), children=children)
    return replace(_with_job(seen, conditions, now), children=children)


def _lacks_children(seen: Seen) -> bool:
    if seen.batch is not None and (seen.batch.finished or seen.batch.deleting):
        return False
    return seen.batch is None or len(seen.present) < 3


def _missing_children(seen: Seen) -> tuple[Manifest, ...]:
    """What has to be made. Raises InvalidSpec, ValidationError."""
    job = RecTrainingJob.model_validate({k: seen.run[k] for k in ("apiVersion", "kind", "metadata", "spec")})
    wanted = children_of(job, write_plan(job, seen.status.pretrained), seen.settings)
    return tuple(c for c in wanted if not _is_there(c, seen))


def _is_there(child: Manifest, seen: Seen) -> bool:
    if child["kind"] == "Job":
        return seen.batch is not None
    return child_id(child) in seen.present


def child_id(child: Manifest) -> str:
    """How `Seen.present` names a child."""
    return f"{child['kind']}/{child['metadata']['name']}"


def _waiting_for_job(seen: Seen, conditions: Conditions, now: datetime) -> Decision:
    """Before the Job exists; or it was deleted by hand, and is made again: S3 knows where to go on."""
    status = seen.status
    events: tuple[EventNote, ...] = ()
    if status.job_name:
        message = "Its Job was deleted; making it again. To stop the run, set runPolicy.suspend or delete it."
        events = (EventNote("Warning", Reason.JOB_DELETED, message, f"job-deleted-{to_text(now)}"),)
        status = status.model_copy(update={"message": message})
        conditions.set(ConditionType.RUNNING, False, Reason.JOB_DELETED, message)
    return Decision(_with_conditions(status, conditions), events=events)


def _with_job(seen: Seen, conditions: Conditions, now: datetime) -> Decision:
    batch = seen.batch
    assert batch is not None
    suspend, max_restarts = _run_policy(seen)
    suspending = suspend or batch.suspend
    conditions.set(ConditionType.ACCEPTED, True, Reason.ACCEPTED)
    ledger = count(
        seen.status,
        seen.pods,
        suspending=suspending,
        max_restarts=max_restarts,
        now=now,
        decided=batch.decided,
    )
    status = outcome.keep_words(_settled(seen, ledger, now), conditions, ledger.new)
    set_stalled(conditions, ledger.new, None)
    if batch.finished:
        return _finished(seen, status, conditions, suspending=suspending, now=now)
    pod = current_pod(seen)
    status, said, report = _reported(seen, status, pod)
    set_stalled(conditions, (), report)
    done = conditions.has(ConditionType.SUCCEEDED)
    explained = _explain(seen, status, pod, suspend=suspend, said=said, done=done, now=now)
    if pod is None or explained.idle:
        status = status.model_copy(update={"progress": without_pod(status.progress)})
    if explained.phase is Phase.SUSPENDED:
        status = at_rest(status)
    stale = set_stale(conditions, status, said=said)
    raised = "" if done else epochs_policy.pending(seen, status)
    sentences = [explained.message, raised, stale]
    if stale and explained.message == said:
        sentences.remove(said)  # it is in the other one
    update = {"phase": explained.phase, "message": " ".join(filter(None, sentences))[:4096]}
    status = status.model_copy(update=update)
    _set_conditions(conditions, status, explained)
    status = _with_conditions(status, conditions)
    events = _events(seen.status, status, explained.reason) + stale_events(seen.status, conditions, status)
    events += stall_events(seen.status, conditions)
    epochs = epochs_policy.epochs_to_raise(seen)
    if epochs is not None:
        events += (epochs_policy.raised_event(seen, epochs),)
    again_s = DELETING_AGAIN_S if batch.deleting else explained.look_again_s
    return Decision(
        status,
        job_patch=job_patch(batch, suspend=suspend, max_restarts=max_restarts),
        plan_epochs=epochs,
        events=events,
        requeue_after_s=again_s,
    )


def _settled(seen: Seen, ledger: Ledger, now: datetime) -> RecTrainingJobStatus:
    """Status with the facts that hold in every phase; what a pod's last words added is in it."""
    assert seen.batch is not None
    status = seen.status
    pod = current_pod(seen)
    update: dict[str, Any] = {
        "observed_generation": seen.run["metadata"].get("generation"),
        "job_name": seen.batch.name,
        "start_time": status.start_time or to_text(now),
        "restarts": ledger.restarts,
        "last_interruption": ledger.last,
        "counted_pods": ledger.counted,
    }
    if pod is not None:
        update |= {"pod": pod.name, "node": pod.node or None}
    if pod is not None and pod.name != status.pod:
        update["report_sequence"] = None  # each pod counts its reports from 1
    if ledger.new or "report_sequence" in update:
        update["progress"] = without_pod(status.progress)  # what was said of the stage is past
    for end in ledger.new:
        if end.result is not None and end.result.checkpoint is not None:
            update["checkpoint"] = end.result.checkpoint
            update["attempt"] = max(end.result.attempt, status.attempt or 0) or None
    return status.model_copy(update=update)


def _reported(
    seen: Seen, status: RecTrainingJobStatus, pod: PodView | None
) -> tuple[RecTrainingJobStatus, str, ProgressReport | None]:
    """Status with the report of the current pod, its sentence, and itself."""
    if seen.report is None or pod is None or seen.report.pod_uid != pod.uid or _is_past(seen, status):
        return status, "", None
    report = seen.report.report
    return with_report(status, report), report.message, report


def _is_past(seen: Seen, status: RecTrainingJobStatus) -> bool:
    """Whether the newest report tells of training that ended with another pod.

    Such a report was shown, and its stage taken back; it isn't true again when all pods are there again.
    """
    assert seen.batch is not None
    assert seen.report is not None
    if seen.batch.completions == 1 or seen.report.report.stage not in _CHECKED:
        return False
    taken_back = status.progress is None or status.progress.stage is None
    return taken_back and status.report_sequence == seen.report.report.sequence


def _explain(
    seen: Seen,
    status: RecTrainingJobStatus,
    pod: PodView | None,
    *,
    suspend: bool,
    said: str,
    done: bool,
    now: datetime,
) -> Explanation:
    assert seen.batch is not None
    phase = suspend_phase(seen.batch, suspend=suspend, pod_left=bool(pods_left(seen)))
    if phase is Phase.SUSPENDING:
        pods = "the pod is" if seen.batch.completions == 1 else "the pods are"
        message = f"Suspending: {pods} saving a last checkpoint."
        return Explanation(phase, Reason.SUSPEND_REQUESTED, message)
    if phase is Phase.SUSPENDED:
        message = "Suspended by runPolicy.suspend; set it to false to go on from the last checkpoint."
        return Explanation(phase, Reason.SUSPEND_REQUESTED, message)
    if pod is None and (done or any(p.phase == "Succeeded" and p.index == 0 for p in seen.pods)):
        return Explanation(Phase.RUNNING, Reason.COMPLETED, "Finished; waiting for the Job to close.")
    gang = explain_gang(seen, interrupted=status.last_interruption, now=now)
    if gang is not None:
        return gang
    if pod is not None:
        stage = status.progress.stage if status.progress else None
        return explain_pod(pod, stage=stage, said=said, interrupted=status.last_interruption, now=now)
    ends = sum(1 for p in seen.pods if p.phase == "Failed")
    return explain_no_pod(interrupted=status.last_interruption, ends=ends, started=status.start_time, now=now)


def _finished(
    seen: Seen, status: RecTrainingJobStatus, conditions: Conditions, *, suspending: bool, now: datetime
) -> Decision:
    assert seen.batch is not None
    end = _last_end(seen, suspending=suspending, now=now)
    time = to_text(now)
    complete = seen.batch.complete is not None
    if complete:
        end = end if end and end.cause == "success" else None
        status = outcome.succeeded(status, conditions, seen, seen.batch, end, time)
    else:
        status = outcome.failed(status, conditions, seen, seen.batch, end, time)
    status = at_rest(status)
    set_stale(conditions, status, said="")
    set_stalled(conditions, (), None, done=complete)
    if status.checkpoint and status.checkpoint.latest:
        _checkpointed(conditions, status)
    status = _with_conditions(status, conditions)
    kind = ConditionType.SUCCEEDED if status.phase is Phase.SUCCEEDED else ConditionType.FAILED
    reason = next(c.reason for c in status.conditions if c.type == kind.value)
    events = _events(seen.status, status, reason) + stall_events(seen.status, conditions)
    return Decision(status, events=events)


def _last_end(seen: Seen, *, suspending: bool, now: datetime) -> PodEnd | None:
    """The end that closed the Job: a success of index 0 if there is one, else the one that is to blame."""
    assert seen.batch is not None
    mine = [p for p in seen.pods if p.ended and p.job_uid == seen.batch.uid]
    ends = [classify(p, suspending=suspending, now=now) for p in mine]
    if seen.batch.failed is not None and seen.batch.completions > 1:
        return to_blame(ends)
    own = [e for e in ends if e.pod.index == 0]
    good = [e for e in own if e.cause == "success"]
    chosen = good or own
    return chosen[-1] if chosen else None


def _set_conditions(conditions: Conditions, status: RecTrainingJobStatus, explained: Explanation) -> None:
    running = explained.phase is Phase.RUNNING
    conditions.set(ConditionType.RUNNING, running, explained.reason, explained.message)
    stage = status.progress.stage if status.progress else None
    set_data_ready(conditions, status, explained.message)
    if explained.phase is Phase.SUSPENDED:
        conditions.set(ConditionType.SUSPENDED, True, Reason.SUSPEND_REQUESTED, explained.message)
    elif conditions.has(ConditionType.SUSPENDED) and explained.phase is not Phase.SUSPENDING:
        conditions.set(ConditionType.SUSPENDED, False, Reason.RESUMED)
    if status.checkpoint is not None and status.checkpoint.latest is not None:
        _checkpointed(conditions, status)
    elif stage is not None and Stage(stage) in _CHECKED:
        conditions.set(ConditionType.CHECKPOINTED, False, Reason.NONE_YET, "No checkpoint yet.")


def _checkpointed(conditions: Conditions, status: RecTrainingJobStatus) -> None:
    assert status.checkpoint is not None
    assert status.checkpoint.latest is not None
    latest = status.checkpoint.latest
    conditions.set(
        ConditionType.CHECKPOINTED, True, Reason.COMMITTED, f"Step {latest.step} lies in {latest.uri}."
    )


def _refused(seen: Seen, conditions: Conditions, children: tuple[Manifest, ...], now: datetime) -> Decision:
    """A child can't be made: ask again, unless that can't help."""
    refusal = seen.refusal
    assert refusal is not None
    if refusal.final:
        return _reject(seen, conditions, refusal.reason, refusal.message, now)
    new = not any(
        c.type == ConditionType.ACCEPTED.value and c.reason == refusal.reason for c in seen.status.conditions
    )
    conditions.set(ConditionType.ACCEPTED, False, refusal.reason, refusal.message)
    status = seen.status.model_copy(
        update={
            "phase": Phase.PENDING,
            "message": refusal.message,
            "observed_generation": seen.run["metadata"].get("generation"),
        }
    )
    events = (EventNote("Warning", refusal.reason, refusal.message, f"refused-{refusal.reason}"),)
    return Decision(
        _with_conditions(status, conditions),
        children=children,
        events=events if new else (),
        requeue_after_s=REFUSED_AGAIN_S,
    )


def _reject(seen: Seen, conditions: Conditions, reason: str, message: str, now: datetime) -> Decision:
    conditions.set(ConditionType.ACCEPTED, False, reason, message)
    generation = seen.run["metadata"].get("generation")
    status = seen.status.model_copy(update={"observed_generation": generation})
    status = outcome.refused(status, conditions, reason, message, to_text(now))
    return Decision(status, events=_events(seen.status, status, reason))


def _sentence(invalid: InvalidSpec | ValidationError) -> str:
    if isinstance(invalid, InvalidSpec):
        return str(invalid)
    first = invalid.errors()[0]
    return f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}."


def _events(old: RecTrainingJobStatus, new: RecTrainingJobStatus, reason: str) -> tuple[EventNote, ...]:
    """One Event a phase; none for the first wait, of which kubectl get says all."""
    if new.phase in (old.phase, None, Phase.PENDING):
        return ()
    bad = new.phase is Phase.FAILED or (new.phase is Phase.RESTARTING and old.phase is not Phase.SUSPENDED)
    restarts = new.restarts
    turn = sum(restarts.model_dump().values()) if restarts else 0
    key = f"{new.phase}-{turn}-{old.phase}"
    return (EventNote("Warning" if bad else "Normal", reason, new.message or str(new.phase), key),)


def _conditions(seen: Seen, now: datetime) -> Conditions:
    generation = int(seen.run["metadata"].get("generation") or 0)
    return Conditions(seen.status.conditions, time=to_text(now), generation=generation)


def _with_conditions(status: RecTrainingJobStatus, conditions: Conditions) -> RecTrainingJobStatus:
    return status.model_copy(update={"conditions": conditions.result()})


def _run_policy(seen: Seen) -> tuple[bool, int]:
    """suspend and maxRestarts, read without the rest: a running run must not depend on a newer schema."""
    policy = (seen.run.get("spec") or {}).get("runPolicy") or {}
    return bool(policy.get("suspend")), int(policy.get("maxRestarts", DEFAULT_MAX_RESTARTS))
