"""What the trainer tells the operator: progress while it runs, its result when it ends.

Progress goes by HTTPS (`PUT …/progress`); the result also travels in the container's termination
message, of which Kubernetes keeps 4,096 bytes.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rectrain_api import GROUP
from rectrain_api.base import ApiModel
from rectrain_api.status import (
    CheckpointStatus,
    DataStatus,
    Devices,
    Int64,
    Message,
    Metrics,
    ModelStatus,
    Progress,
    Text,
    Uri,
)

TERMINATION_LIMIT_BYTES = 3_584
"""3.5 KiB: below Kubernetes' 4,096, which would cut anywhere, also in the middle of a character."""

REPORT_LIMIT_BYTES = 64 * 1024


class Stage(StrEnum):
    """What the pod is doing."""

    STAGING = "Staging"
    CHECKING = "Checking"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    FINISHED = "Finished"


class ProgressReport(ApiModel):
    """One report. Later ones replace earlier ones whole; lower attempts and sequences are refused."""

    attempt: Annotated[Int64, Field(ge=0)]
    """The log's attempt number; 0 before the log was reached."""
    sequence: Annotated[Int64, Field(ge=1)]
    stage: Stage
    message: Message = ""
    """A sentence worth showing, such as what is waited for; empty when all is well."""
    progress: Progress | None = None
    metrics: Metrics | None = None
    data: DataStatus | None = None
    devices: Devices | None = None
    checkpoint: CheckpointStatus | None = None
    model: ModelStatus | None = None
    report: Uri | None = None


class TerminationResult(ApiModel):
    """How the trainer ended, in its own words."""

    exit_code: Annotated[int, Field(ge=0, le=255)]
    reason: Text
    message: Message = ""
    attempt: Int64 = 0
    reached_training: bool = False
    progress: Progress | None = None
    metrics: Metrics | None = None
    checkpoint: CheckpointStatus | None = None
    model: ModelStatus | None = None
    report: Uri | None = None

    def to_termination_message(self) -> str:
        """JSON of at most 3.5 KiB: the message is cut first, at a character. Very long URIs leave no room for
        the report's, which the last progress report has too."""
        text = _compact(self)
        bare = _compact(self.model_copy(update={"message": ""}))
        if self.report and len(bare.encode()) > TERMINATION_LIMIT_BYTES:
            return self.model_copy(update={"report": None}).to_termination_message()
        excess = len(text.encode()) - TERMINATION_LIMIT_BYTES
        message = self.message
        while excess > 0 and message:
            keep = len(message.encode()) - excess - len("…".encode())
            message = message.encode()[: max(keep, 0)].decode(errors="ignore")
            text = _compact(self.model_copy(update={"message": message + "…" if message else ""}))
            excess = len(text.encode()) - TERMINATION_LIMIT_BYTES
        return text


def _compact(result: TerminationResult) -> str:
    return result.model_dump_json(by_alias=True, exclude_none=True)


def parse_termination_message(text: str) -> TerminationResult | None:
    """The result in a termination message; None when it isn't one of ours (a crash, a kill)."""
    try:
        return TerminationResult.model_validate_json(text)
    except ValueError:
        return None


def report_path(namespace: str, name: str) -> str:
    """Path of a run's progress on the operator's report server."""
    return f"/v1/namespaces/{namespace}/rectrainingjobs/{name}/progress"


def report_audience(uid: str) -> str:
    """Audience of the projected token that may report for the run with this UID, and no other."""
    return f"{GROUP}/rectrainingjobs/{uid}"
