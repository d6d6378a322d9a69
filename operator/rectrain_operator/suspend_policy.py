"""What `runPolicy.suspend` and `runPolicy.maxRestarts` ask of the Job. Pure."""

from rectrain_api.status import Phase
from rectrain_operator.keys import Manifest
from rectrain_operator.views import JobView


def job_patch(batch: JobView, *, suspend: bool, max_restarts: int) -> Manifest | None:
    """The merge patch that brings a running Job in line with the run's policy; None when it is."""
    if batch.finished or batch.deleting:
        return None
    spec: dict[str, object] = {}
    if batch.suspend != suspend:
        spec["suspend"] = suspend
    if batch.backoff_limit != max_restarts:
        spec["backoffLimit"] = max_restarts
    return {"spec": spec} if spec else None


def suspend_phase(batch: JobView | None, *, suspend: bool, pod_left: bool) -> Phase | None:
    """Suspending while a pod is left: it may be saving a last checkpoint. None when suspend plays no part."""
    if batch is None or not (suspend or batch.suspend):
        return None
    if not suspend:
        return None  # resumed: the patch is on its way
    return Phase.SUSPENDING if pod_left or not batch.suspend else Phase.SUSPENDED
