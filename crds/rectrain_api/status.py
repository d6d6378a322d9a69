"""`status` of a RecTrainingJob: what the operator says, and nobody else writes.

Built whole by the operator's pure `decide`, written with one patch. Every reason that may stand in a
condition is in `Reason`.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, FiniteFloat, StringConstraints

from rectrain_api.base import ApiModel

MESSAGE_LIMIT = 4096
COUNTED_KEPT = 128
"""Twice the most pods of a run: all of them may end within one second."""

Time = Annotated[str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})]
Uri = Annotated[str, StringConstraints(max_length=1100)]
Text = Annotated[str, StringConstraints(max_length=64)]


def _cut(value: Any) -> Any:
    """A sentence that is too long is cut: losing its end is better than losing all that came with it."""
    return (
        value[: MESSAGE_LIMIT - 1] + "…" if isinstance(value, str) and len(value) > MESSAGE_LIMIT else value
    )


INT64_LEAST, INT64_MOST = -(2**63), 2**63 - 1
Int64 = Annotated[int, Field(ge=INT64_LEAST, le=INT64_MOST)]
"""The API server would refuse the whole status for one number that no int64 holds."""
Message = Annotated[str, BeforeValidator(_cut), StringConstraints(max_length=MESSAGE_LIMIT)]


class Phase(StrEnum):
    """Where the run is, computed from what is seen; never the last condition."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


TERMINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED})


class ConditionType(StrEnum):
    """The conditions that `kubectl wait --for=condition=…` can wait for."""

    ACCEPTED = "Accepted"
    DATA_READY = "DataReady"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    CHECKPOINTED = "Checkpointed"
    CHECKPOINT_STALE = "CheckpointStale"
    """True while a snapshot waits that can't be committed; False from the first commit on, so that a wait for
    either ends."""
    STALLED = "Stalled"
    """True from when a pod was ended since it did no step for runPolicy.stallTimeout, to the next step."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Reason(StrEnum):
    """Reasons of conditions and Events that aren't an exit code's (`rectrain_api.exit_codes`)."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    PRETRAINED_MISSING = "PretrainedMissing"
    NAME_TAKEN = "NameTaken"
    FORBIDDEN = "Forbidden"
    STAGING = "Staging"
    CHECKING = "Checking"
    CHECKED = "Checked"
    CHECKED_WITH_WARNINGS = "CheckedWithWarnings"
    WAITING_FOR_POD = "WaitingForPod"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    CONTAINER_WAITING = "ContainerWaiting"
    NODE_LOST = "NodeLost"
    TRAINING = "Training"
    RESTARTING = "Restarting"
    NOT_RUNNING = "NotRunning"
    SUSPEND_REQUESTED = "SuspendRequested"
    RESUMED = "Resumed"
    COMMITTED = "Committed"
    NONE_YET = "NoneYet"
    COMPLETED = "Completed"
    ALREADY_COMPLETE = "AlreadyComplete"
    RESULT_UNREAD = "ResultUnread"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASHED = "Crashed"
    DISRUPTED = "Disrupted"
    FAILING = "Failing"
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    JOB_DELETED = "JobDeleted"
    EPOCHS_RAISED = "EpochsRaised"
    CERTIFICATE_UNKEPT = "CertificateUnkept"


class Condition(ApiModel):
    """A standard metav1.Condition."""

    type: Annotated[Text, Field(description="Type of the condition.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="Whether it holds.")]
    reason: Annotated[Text, Field(description="Why, in one CamelCase word.")]
    message: Annotated[Message, Field(description="Why, in a sentence.")] = ""
    last_transition_time: Annotated[Time, Field(description="When status last changed.")]
    observed_generation: Annotated[Int64, Field(description="Generation of the spec that it speaks of.")] = 0


class Progress(ApiModel):
    """How far the run is."""

    epoch: Annotated[Int64, Field(ge=0, description="Epochs begun so far, from 1.")] = 0
    epochs: Annotated[Int64, Field(ge=0, description="Epochs in all.")] = 0
    step: Annotated[Int64, Field(ge=0, description="Optimizer steps done, over all attempts.")] = 0
    steps: Annotated[Int64, Field(ge=0, description="Optimizer steps in all.")] = 0
    percent: Annotated[Int64, Field(ge=0, le=100, description="Steps done of all [%].")] = 0
    samples_per_second: Annotated[FiniteFloat | None, Field(description="Images trained a second.")] = None
    data_wait_percent: Annotated[
        FiniteFloat | None, Field(description="Part of the time that the device waited for data [%].")
    ] = None
    eta: Annotated[Text | None, Field(description="Time left, such as 12m or 3h20m.")] = None
    text: Annotated[Text | None, Field(description="Percent as shown by kubectl get, such as 42%.")] = None
    epoch_text: Annotated[Text | None, Field(description="Epoch of epochs, such as 3/10.")] = None
    stage: Annotated[
        Text | None, Field(description="What the pod is doing, such as Staging or Training.")
    ] = None


class BestMetric(ApiModel):
    """The best evaluation so far."""

    accuracy: Annotated[
        FiniteFloat, Field(description="Part of the evaluation set read exactly right [0, 1].")
    ]
    epoch: Annotated[Int64, Field(description="Epoch of it.")]
    step: Annotated[Int64, Field(description="Optimizer step of it.")]


class Metrics(ApiModel):
    """What training and evaluation last measured."""

    loss: Annotated[FiniteFloat | None, Field(description="Training loss, mean since the last report.")] = (
        None
    )
    accuracy: Annotated[
        FiniteFloat | None,
        Field(description="Part of the evaluation set read exactly right, at the last evaluation."),
    ] = None
    accuracy_text: Annotated[
        Text | None, Field(description="Accuracy as shown by kubectl get, such as 97.2%.")
    ] = None
    norm_edit_distance: Annotated[
        FiniteFloat | None, Field(description="1 - mean normalised edit distance, at the last evaluation.")
    ] = None
    character_error_rate: Annotated[
        FiniteFloat | None,
        Field(
            description="Characters wrong, missing or too many, of all in the labels, at the last evaluation."
        ),
    ] = None
    upstream_acc: Annotated[
        FiniteFloat | None,
        Field(
            description="What PaddleOCR's own evaluation calls acc: spaces ignored, characters that the "
            "dictionary lacks taken out of the labels, images squeezed to the training width."
        ),
    ] = None
    learning_rate: Annotated[FiniteFloat | None, Field(description="Learning rate of the last step.")] = None
    best: Annotated[BestMetric | None, Field(description="The best evaluation so far.")] = None


class CheckpointRef(ApiModel):
    """One committed checkpoint."""

    uri: Annotated[Uri, Field(description="Where it lies.")]
    step: Annotated[Int64, Field(description="Optimizer step of it.")]
    epoch: Annotated[Int64, Field(description="Epoch of it.")]
    time: Annotated[Time, Field(description="When it was committed.")]
    bytes: Annotated[Int64, Field(description="Its size [B].")]


class StaleCheckpoint(ApiModel):
    """A snapshot waits to be committed, and can't be."""

    since: Annotated[Time, Field(description="When the last checkpoint was committed, or training began.")]
    reason: Annotated[Text, Field(description="What keeps it, such as StoreUnavailable or DiskTooSmall.")]


def nothing_since(since: str, cause: str = "") -> str:
    """The sentence of a run that commits nothing: said by the trainer, shown by the operator."""
    return f"Nothing has been committed since {since}" + (f": {cause}" if cause else ".")


class CheckpointStatus(ApiModel):
    """Where a resumed run would go on, and where the best weights are."""

    latest: Annotated[CheckpointRef | None, Field(description="The newest committed checkpoint.")] = None
    best: Annotated[CheckpointRef | None, Field(description="The checkpoint with the best accuracy.")] = None
    stale: Annotated[
        StaleCheckpoint | None,
        Field(description="Since when nothing was committed; absent when all is well."),
    ] = None


class ModelStatus(ApiModel):
    """The exported model."""

    uri: Annotated[Uri, Field(description="Folder of inference.json, inference.pdiparams and inference.yml.")]


class FindingStatus(ApiModel):
    """Something that the checks before training found."""

    code: Annotated[Text, Field(description="Its stable code, such as RD012.")]
    severity: Annotated[
        Literal["Error", "Warning"],
        Field(description="An Error refuses the data where validation is Strict."),
    ]
    count: Annotated[Int64, Field(ge=0, description="How often.")]
    message: Annotated[Message, Field(description="What, where first, and how to mend it.")]


FINDINGS_KEPT = 16


class DataStatus(ApiModel):
    """What the checks before training found."""

    train_samples: Annotated[Int64, Field(ge=0, description="Samples trained on.")] = 0
    eval_samples: Annotated[Int64, Field(ge=0, description="Samples evaluated on.")] = 0
    left_out: Annotated[
        Int64, Field(ge=0, description="Samples that can't be used, left out (unless validation is Strict).")
    ] = 0
    findings: Annotated[
        list[FindingStatus], Field(max_length=FINDINGS_KEPT, description="The first findings.")
    ] = []


class Devices(ApiModel):
    """What it trains on."""

    kind: Annotated[Text, Field(description="cpu or gpu.")]
    count: Annotated[Int64, Field(description="Devices in all.")]
    name: Annotated[str, StringConstraints(max_length=128), Field(description="Name of the device.")] = ""


class Restarts(ApiModel):
    """Pods replaced, by cause. Only failure and oom spend runPolicy.maxRestarts."""

    failure: Annotated[Int64, Field(ge=0, description="Crashes and errors that may pass.")] = 0
    oom: Annotated[Int64, Field(ge=0, description="Out of memory.")] = 0
    disruption: Annotated[Int64, Field(ge=0, description="Nodes lost, drained or reclaimed.")] = 0
    suspend: Annotated[Int64, Field(ge=0, description="Stopped by suspend.")] = 0


class Interruption(ApiModel):
    """The last time that a pod ended before the run did."""

    reason: Annotated[Text, Field(description="Why, in one CamelCase word.")]
    message: Annotated[Message, Field(description="Why, in a sentence.")] = ""
    exit_code: Annotated[Int64 | None, Field(description="Exit code of the trainer, where known.")] = None
    time: Annotated[Time, Field(description="When.")]
    pod: Annotated[str, StringConstraints(max_length=253), Field(description="Which pod.")] = ""


class RecTrainingJobStatus(ApiModel):
    """What is known of the run."""

    phase: Annotated[Phase | None, Field(description="Where the run is.")] = None
    message: Annotated[Message | None, Field(description="What is going on, in a sentence.")] = None
    attempt: Annotated[
        Int64 | None, Field(ge=0, description="Number of the attempt, from the log in S3.")
    ] = None
    report_sequence: Annotated[
        Int64 | None,
        Field(ge=0, description="Number of the last progress report of this attempt that was taken."),
    ] = None
    observed_generation: Annotated[
        Int64 | None, Field(description="Generation of the spec that this speaks of.")
    ] = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            description="Standard conditions.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    progress: Annotated[Progress | None, Field(description="How far it is.")] = None
    metrics: Annotated[Metrics | None, Field(description="What it last measured.")] = None
    data: Annotated[DataStatus | None, Field(description="What the checks before training found.")] = None
    devices: Annotated[Devices | None, Field(description="What it trains on.")] = None
    checkpoint: Annotated[CheckpointStatus | None, Field(description="Where a resumed run would go on.")] = (
        None
    )
    model: Annotated[ModelStatus | None, Field(description="The exported model.")] = None
    report: Annotated[Uri | None, Field(description="The run's report: one HTML file, for a browser.")] = None
    pretrained: Annotated[
        Uri | None, Field(description="Where the run lies that model.pretrained.fromJob names.")
    ] = None
    restarts: Annotated[Restarts | None, Field(description="Pods replaced, by cause.")] = None
    last_interruption: Annotated[Interruption | None, Field(description="Why the last pod ended early.")] = (
        None
    )
    counted_pods: Annotated[
        list[Annotated[str, StringConstraints(max_length=64)]],
        Field(
            max_length=COUNTED_KEPT,
            description="UIDs of the ended pods last counted in restarts, so that none counts twice.",
        ),
    ] = []
    job_name: Annotated[Text | None, Field(description="The batch/v1 Job that runs it.")] = None
    node: Annotated[
        str | None, StringConstraints(max_length=253), Field(description="Node of the current pod.")
    ] = None
    pod: Annotated[
        str | None, StringConstraints(max_length=253), Field(description="Name of the current pod.")
    ] = None
    start_time: Annotated[Time | None, Field(description="When its Job was made.")] = None
    completion_time: Annotated[Time | None, Field(description="When it ended.")] = None
