"""The pods that train together: which of them are at work, and what it means when some aren't. Pure.

Called by `decide` and `reconcile`. Index 0 reports, and its end is the run's; the others only have to be
there, but each step waits for all of them. So a run of several pods is told by the first that is lacking.
"""

from datetime import datetime

from rectrain_api.status import Interruption, Phase, Reason
from rectrain_operator.explain import Explanation, explain_no_pod, explain_pod, node_lost
from rectrain_operator.seen import Seen
from rectrain_operator.views import PodView


def current_pod(seen: Seen, index: int = 0) -> PodView | None:
    """The pod at work: the newest of an index of the current Job that hasn't ended."""
    return next((p for p in reversed(pods_left(seen)) if p.index == index), None)


def pods_left(seen: Seen) -> list[PodView]:
    """Pods of the current Job that haven't ended, oldest first."""
    return [p for p in _current(seen) if not p.ended]


def explain_gang(seen: Seen, *, interrupted: Interruption | None, now: datetime) -> Explanation | None:
    """Why a run of several pods can't train just now; None when all are there, and when it is one pod."""
    if seen.batch is None or seen.batch.completions == 1 or seen.batch.succeeding is not None:
        return None
    nodes = seen.batch.completions
    if seen.batch.failing is not None:
        message = "The run has failed; it is closed when the pods that are left have stopped."
        return Explanation(seen.status.phase or Phase.PENDING, Reason.FAILING, message, idle=True)
    lacking = [index for index in range(nodes) if not _is_there(seen, index, now)]
    if not lacking:
        return None
    why = _why(seen, lacking[0], interrupted, now)
    here = nodes - len(lacking)
    message = f"{here} of {nodes} pods {'runs' if here == 1 else 'run'}; pod {lacking[0]}: {why.message}"
    # A pod on a lost node is called Running where it is alone: here the others wait for it.
    phase = Phase.PENDING if why.phase is Phase.PENDING else Phase.RESTARTING
    return Explanation(phase, why.reason, message, why.look_again_s, idle=True)


def _is_there(seen: Seen, index: int, now: datetime) -> bool:
    """It runs on a node that is heard; or it has ended well, and the run needs it no more."""
    pod = current_pod(seen, index)
    if pod is not None:
        return pod.running and node_lost(pod, now) is None
    return any(p.phase == "Succeeded" and p.index == index for p in _current(seen))


def _current(seen: Seen) -> list[PodView]:
    return [p for p in seen.pods if seen.batch is not None and p.job_uid == seen.batch.uid]


def _why(seen: Seen, index: int, interrupted: Interruption | None, now: datetime) -> Explanation:
    pod = current_pod(seen, index)
    if pod is not None:
        return explain_pod(pod, stage=None, said="", interrupted=interrupted, now=now)
    ends = sum(1 for p in seen.pods if p.phase == "Failed")
    started = seen.status.start_time
    return explain_no_pod(interrupted=interrupted, ends=ends, started=started, now=now)
