"""What the checks before training found: the condition DataReady. Pure. Called by `decide`."""

from rectrain_api.report import Stage
from rectrain_api.status import ConditionType, DataStatus, Reason, RecTrainingJobStatus
from rectrain_operator.conditions import Conditions

KIND = ConditionType.DATA_READY
_BEFORE = {Stage.STAGING.value: Reason.STAGING, Stage.CHECKING.value: Reason.CHECKING}


def set_data_ready(conditions: Conditions, status: RecTrainingJobStatus, message: str) -> None:
    """As far as the pod has come by its stage; `message` says what it does. No pod, no change."""
    stage = status.progress.stage if status.progress else None
    if stage in _BEFORE:
        conditions.set(KIND, False, _BEFORE[stage], message)
    elif stage is not None:
        warned = status.data is not None and status.data.findings
        reason = Reason.CHECKED_WITH_WARNINGS if warned else Reason.CHECKED
        conditions.set(KIND, True, reason, summary(status.data) if status.data else "")


def set_data_refused(conditions: Conditions, reason: str, message: str) -> None:
    """The run has failed: data that wasn't ready by then won't be, and this is why."""
    if conditions.has(KIND) and not conditions.holds(KIND):
        conditions.set(KIND, False, reason, message)


def summary(data: DataStatus) -> str:
    """What is trained on, and every finding."""
    said = [f"Trains on {data.train_samples:,} samples, evaluates on {data.eval_samples:,}."]
    if data.left_out:
        said.append(f"{data.left_out:,} that can't be used are left out.")
    said += [f"{f.message.rstrip('.')}." for f in data.findings]
    return " ".join(said)
