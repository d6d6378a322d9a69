"""What a larger `training.epochs` of a started run asks of its run plan, and what is said of it. Pure.

Called by `decide` and `outcome`. Only epochs that the user gave count: the preset's, left out of spec, may be
others in another version, and must not change a run that has started. A plan has 0
where its model's config has them: what is given is then always more.
"""

from rectrain_api.status import Reason, RecTrainingJobStatus
from rectrain_operator.keys import Manifest
from rectrain_operator.seen import EventNote, Seen


def epochs_to_raise(seen: Seen) -> int | None:
    """The epochs that the run plan of an open Job is to have; None when it has them, or it is too late."""
    wanted, batch = _wanted(seen.run), seen.batch
    if batch is None or batch.decided or wanted is None or seen.plan_epochs is None:
        return None
    return wanted if wanted > seen.plan_epochs else None


def raised_event(seen: Seen, epochs: int) -> EventNote:
    """Says that the run plan gets more epochs. They only grow, so each number is said once."""
    told = seen.status.progress.epochs if seen.status.progress else 0
    message = _sentence(epochs, seen.plan_epochs or told)
    return EventNote("Normal", Reason.EPOCHS_RAISED, message, f"epochs-{epochs}")


def pending(seen: Seen, status: RecTrainingJobStatus) -> str:
    """A sentence while the trainer still counts by the epochs of before; else empty."""
    now = status.progress.epochs if status.progress else 0
    if not now or seen.plan_epochs is None or seen.plan_epochs <= now:
        return ""
    return _sentence(seen.plan_epochs, now)


def too_late(run: Manifest, status: RecTrainingJobStatus) -> str:
    """A sentence for a run that ended well before its larger epochs took effect; else empty."""
    wanted, done = _wanted(run), status.progress.epochs if status.progress else 0
    if not done or wanted is None or wanted <= done:
        return ""
    return (
        f"The {wanted} epochs came too late: to train on from its checkpoints, delete this run and apply it "
        "again."
    )


def _wanted(run: Manifest) -> int | None:
    """Read without the rest: a running run must not depend on a newer schema."""
    epochs = ((run.get("spec") or {}).get("training") or {}).get("epochs")
    return epochs if isinstance(epochs, int) else None


def _sentence(epochs: int, was: int) -> str:
    return (
        f"{epochs} epochs instead of {was}: takes effect at the end of the running epoch, or at the next "
        "attempt."
    )
