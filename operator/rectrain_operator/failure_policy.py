"""Why pods ended, and what that cost: the ledger in status. Pure.

`classify` reads one ended pod; `count` adds the pods that status hasn't counted. The Job controller decides
about retries by the same exit codes (`children.job.failure_rules`); this only says in words what it did, and
says it the same way however often, and however late, it is asked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from rectrain_api.exit_codes import GENERIC_REASONS, codes_with
from rectrain_api.report import TerminationResult, parse_termination_message
from rectrain_api.status import COUNTED_KEPT, Interruption, Reason, RecTrainingJobStatus, Restarts
from rectrain_operator.times import to_text
from rectrain_operator.views import PodView

Cause = Literal["failure", "oom", "disruption", "suspend", "final", "success", "unstarted"]

TAIL_CHARS: Final = 1500
SIGKILL_EXIT: Final = 137
SIGTERM_EXIT: Final = 143
_RESTARTING: Final = frozenset({"failure", "oom", "disruption", "suspend"})


@dataclass(frozen=True)
class PodEnd:
    """How one pod ended."""

    pod: PodView
    cause: Cause
    reason: str
    message: str
    time: str
    exit_code: int | None = None
    result: TerminationResult | None = None
    """The trainer's own words, when it had time for them."""

    def as_interruption(self) -> Interruption:
        """For status."""
        return Interruption(
            reason=self.reason[:64],
            message=self.message[:4096],
            exit_code=self.exit_code,
            time=self.time,
            pod=self.pod.name,
        )


@dataclass(frozen=True)
class Ledger:
    """What status says about ended pods."""

    restarts: Restarts
    last: Interruption | None
    counted: list[str]
    new: tuple[PodEnd, ...] = ()


def classify(pod: PodView, *, suspending: bool, now: datetime) -> PodEnd:
    """Why an ended pod ended."""
    time = _end_time(pod, now)
    ended = pod.terminated
    if ended is None:
        return _without_container(pod, suspending=suspending, time=time)
    result = parse_termination_message(ended.message)
    if result is not None and result.exit_code != ended.exit_code:
        result = None  # written, and then something else happened to it
    reason, message = _words(pod, result)
    cause = _cause(pod, suspending=suspending)
    if cause == "oom":
        reason, message = Reason.OUT_OF_MEMORY, _out_of_memory(ended.reason == "OOMKilled")
    elif pod.disruption is not None and result is None:
        reason, message = Reason.DISRUPTED, _disrupted(pod)
    elif cause == "suspend":
        reason = Reason.SUSPEND_REQUESTED
    return PodEnd(pod, cause, reason, message, time, ended.exit_code, result)


def count(
    status: RecTrainingJobStatus,
    pods: Iterable[PodView],
    *,
    suspending: bool,
    max_restarts: int,
    now: datetime,
    decided: str = "",
) -> Ledger:
    """The ledger after counting the ended pods that it hasn't.

    Since `decided` the Job is being closed: what ends from then on was told to, and nothing replaces it.
    """
    restarts = status.restarts or Restarts()
    last, counted = status.last_interruption, list(status.counted_pods)
    new: list[PodEnd] = []
    ends = [classify(p, suspending=suspending, now=now) for p in pods if p.ended and p.uid not in counted]
    for end in sorted(ends, key=lambda e: e.time):
        if len(counted) >= COUNTED_KEPT and last is not None and end.time < last.time:
            continue  # counted long ago: its UID has fallen off the list
        counted.append(end.pod.uid)
        new.append(end)
        if end.cause not in _RESTARTING or _spent(end, restarts, max_restarts):
            continue
        if decided and end.time >= decided:
            continue
        restarts = restarts.model_copy(update={end.cause: getattr(restarts, end.cause) + 1})
        last = end.as_interruption()
    return Ledger(restarts, last, counted[-COUNTED_KEPT:], tuple(new))


def to_blame(ends: Sequence[PodEnd]) -> PodEnd | None:
    """The end that a failed Job of several pods is told by.

    When one pod fails the Job, the others are told to stop and end after it: the newest end seldom says why.
    """
    for causes in ({"final"}, {"failure", "oom"}):
        own = [e for e in ends if e.cause in causes and e.reason != Reason.DISRUPTED]
        if own:
            return max(own, key=lambda e: e.time)
    return max(ends, key=lambda e: e.time, default=None)


def _spent(end: PodEnd, restarts: Restarts, max_restarts: int) -> bool:
    """Whether the Job controller gives up after this end: then nothing is restarted."""
    return end.cause in ("failure", "oom") and restarts.failure + restarts.oom >= max_restarts


def _cause(pod: PodView, *, suspending: bool) -> Cause:
    ended = pod.terminated
    if ended is None or pod.disruption is not None:
        return "disruption"
    if ended.reason == "OOMKilled":
        return "oom"
    if ended.exit_code == 0:
        return "success"
    deleted = bool(pod.deletion or pod.gone)
    if deleted and suspending:
        return "suspend"
    if ended.exit_code == SIGKILL_EXIT and not deleted:
        return "oom"
    if ended.exit_code in codes_with("FailJob"):
        return "final"
    return "disruption" if ended.exit_code in codes_with("Ignore") else "failure"


def _words(pod: PodView, result: TerminationResult | None) -> tuple[str, str]:
    """Reason and sentence: the trainer's own, else what the exit code and the log's end say."""
    assert pod.terminated is not None
    if result is not None:
        return result.reason, result.message or f"The trainer ended with exit code {result.exit_code}."
    code = pod.terminated.exit_code
    if code == 0:
        return Reason.COMPLETED, "The trainer ended well, but left no result."
    reason = GENERIC_REASONS.get(code, Reason.CRASHED)
    if code in (SIGKILL_EXIT, SIGTERM_EXIT) and (pod.deletion or pod.gone):
        return Reason.DISRUPTED, f"Pod {pod.name} was deleted and ended with exit code {code}."
    sentence = f"The trainer ended with exit code {code}"
    if pod.terminated.reason and pod.terminated.reason != "Error":
        sentence += f" ({pod.terminated.reason})"
    tail = pod.terminated.message.strip()[-TAIL_CHARS:]
    return reason, f"{sentence}. The end of its log: {tail}" if tail else f"{sentence}."


def _without_container(pod: PodView, *, suspending: bool, time: str) -> PodEnd:
    """A pod of which no container's end is known: evicted before it ran, lost with its node, deleted."""
    if pod.phase == "Succeeded":
        return PodEnd(pod, "success", Reason.COMPLETED, "The pod succeeded.", time)
    if pod.disruption is not None:
        return PodEnd(pod, "disruption", Reason.DISRUPTED, _disrupted(pod), time)
    if pod.deletion or pod.gone:
        if not pod.running:
            return PodEnd(pod, "unstarted", Reason.NOT_RUNNING, f"Pod {pod.name} never ran.", time)
        if suspending:
            return PodEnd(pod, "suspend", Reason.SUSPEND_REQUESTED, "Stopped by runPolicy.suspend.", time)
        return PodEnd(pod, "disruption", Reason.DISRUPTED, f"Pod {pod.name} was deleted.", time)
    why = pod.failure
    sentence = f"Pod {pod.name} failed before the trainer ended"
    detail = f": {why.reason}: {why.message}" if why else "."
    return PodEnd(pod, "failure", why.reason if why else Reason.CRASHED, (sentence + detail)[:4000], time)


def _disrupted(pod: PodView) -> str:
    assert pod.disruption is not None
    detail = pod.disruption.message or "no more is known."
    return f"Pod {pod.name} was taken away ({pod.disruption.reason}): {detail}"


def _out_of_memory(certain: bool) -> str:
    sure = "ran out of memory" if certain else "was killed (exit code 137), most likely for want of memory"
    return (
        f"The trainer {sure}. Raise replicas.resources.limits.memory, or lower training.batchSize or "
        "training.workers in a new run."
    )


def _end_time(pod: PodView, now: datetime) -> str:
    if pod.terminated is not None and pod.terminated.finished_at:
        return pod.terminated.finished_at
    if pod.disruption is not None and pod.disruption.time:
        return pod.disruption.time
    if pod.phase in ("Succeeded", "Failed"):
        return pod.changed or pod.created or to_text(now)  # the same however late it is asked
    return to_text(now)
