"""The one status write: a merge patch of what differs, under the version that was seen. Pure."""

from typing import Any

from rectrain_api.status import RecTrainingJobStatus
from rectrain_operator.keys import Manifest


def status_patch(run: Manifest, status: RecTrainingJobStatus) -> Manifest | None:
    """The merge patch from the run's status as seen to `status`; None when nothing differs.

    With the resourceVersion in it a stale view can't overwrite a newer status: the API server answers 409.
    """
    old = run.get("status") or {}
    changes = merge_diff(old, status.to_dict())
    if not changes:
        return None
    return {"metadata": {"resourceVersion": run["metadata"]["resourceVersion"]}, "status": changes}


def merge_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What JSON merge needs to make `new` of `old`: null removes, lists are replaced whole."""
    changes: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := merge_diff(before, value):
                changes[key] = inner
        elif key not in old or before != value:
            changes[key] = value
    return changes
