"""A run whose pod hung: the condition Stalled and its Event. Pure.

Called by `decide`. The trainer's supervisor sees it and ends the pod; that end makes the condition True. It
turns False when a newer pod has done a step, not sooner: one that stages its data may hang at the same place.
"""

from collections.abc import Iterable
from typing import Final

from rectrain_api.errors import Stalled
from rectrain_api.exit_codes import outcome_of
from rectrain_api.report import ProgressReport, Stage
from rectrain_api.status import ConditionType, Reason, RecTrainingJobStatus
from rectrain_operator.conditions import Conditions
from rectrain_operator.failure_policy import PodEnd
from rectrain_operator.seen import EventNote

STALLED: Final = outcome_of(Stalled()).reason
_BEHIND_THE_LAST_STEP: Final = (Stage.EXPORTING, Stage.FINISHED)


def set_stalled(
    conditions: Conditions, ends: Iterable[PodEnd], said: ProgressReport | None, *, done: bool = False
) -> None:
    """Set the condition. `ends` are those that are new, `said` is the current pod's report."""
    kind = ConditionType.STALLED
    for end in ends:
        if end.reason == STALLED:
            conditions.set(kind, True, STALLED, end.message)
    if not conditions.holds(kind):
        return
    if done:
        conditions.set(kind, False, Reason.COMPLETED, "The run went on, and has finished.")
    elif said is not None and _has_done_a_step(said):
        step = said.progress.step if said.progress else 0
        conditions.set(kind, False, Reason.TRAINING, f"A newer pod trains, and is at step {step}.")


def _has_done_a_step(said: ProgressReport) -> bool:
    """How fast it is, is known from its first step on; before, it only says where it will begin."""
    stepped = said.progress is not None and said.progress.samples_per_second is not None
    return stepped or said.stage in _BEHIND_THE_LAST_STEP


def stall_events(old: RecTrainingJobStatus, conditions: Conditions) -> tuple[EventNote, ...]:
    """A Warning when it turns True, or another pod hangs."""
    kind = ConditionType.STALLED
    now = conditions.get(kind)
    was = next((c for c in old.conditions if c.type == kind), None)
    if now is None or now.status != "True" or (was is not None and was.message == now.message):
        return ()
    restarts = old.restarts
    turn = sum(restarts.model_dump().values()) if restarts else 0
    return (EventNote("Warning", kind, now.message, f"stalled-{turn}"),)
