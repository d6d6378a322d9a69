"""The run that `model.pretrained.fromJob` names: looked up once, then kept in status. Pure.

Called by `decide`, and by `reconcile` to know whom to look for. The run plan is made once; status keeps what
it was made of, since the other run may be gone when a child has to be made again.
"""

from dataclasses import replace

from rectrain_api.status import Reason
from rectrain_operator.keys import JobKey, Manifest, key_of
from rectrain_operator.seen import Refusal, Seen


def source_key(run: Manifest) -> JobKey | None:
    """The other run, if one is named."""
    pretrained = ((run.get("spec") or {}).get("model") or {}).get("pretrained") or {}
    name = pretrained.get("fromJob")
    return JobKey(key_of(run).namespace, name) if name else None


def with_source(seen: Seen) -> Seen:
    """The same, with the place of the other run in status from the first time that it was found."""
    if seen.status.pretrained is not None or seen.source is None:
        return seen
    return replace(seen, status=seen.status.model_copy(update={"pretrained": seen.source}))


def source_missing(seen: Seen) -> Refusal | None:
    """Why the run can't start yet: the other one was never found."""
    key = source_key(seen.run)
    if key is None or seen.status.pretrained is not None:
        return None
    message = (
        f"model.pretrained.fromJob names the RecTrainingJob {key.name}, which isn't in the namespace "
        f"{key.namespace}: create it, correct the name, or give that run's checkpoint.uri as "
        "model.pretrained.uri. This run then starts by itself."
    )
    return Refusal(Reason.PRETRAINED_MISSING, message, final=False)
