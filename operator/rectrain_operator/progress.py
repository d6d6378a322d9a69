"""What a report, or the trainer's last words, change in status. Pure.

Called by `decide`. Later reports replace earlier ones whole, but a part that a report leaves out (a pod that
is still staging has no metrics) stays as it was.
"""

from typing import Any

from rectrain_api.report import ProgressReport, Stage, TerminationResult
from rectrain_api.status import CheckpointStatus, Metrics, Progress, RecTrainingJobStatus

LOSS_DIGITS = 4
RATE_DIGITS = 4


def with_report(status: RecTrainingJobStatus, report: ProgressReport) -> RecTrainingJobStatus:
    """Status after a report of the current pod."""
    progress = report.progress or status.progress or Progress()
    update: dict[str, Any] = {
        "attempt": max(report.attempt, status.attempt or 0) or None,
        "report_sequence": report.sequence,
        "progress": formatted(progress, stage=report.stage),
    }
    if report.metrics is not None:
        update["metrics"] = readable(report.metrics)
    # A report says each time what waits to be committed: without a word of it, nothing does.
    update["checkpoint"] = report.checkpoint or without_stale(status.checkpoint)
    for name in ("data", "devices", "model", "report"):
        if (value := getattr(report, name)) is not None:
            update[name] = value
    return status.model_copy(update=update)


def with_result(status: RecTrainingJobStatus, result: TerminationResult) -> RecTrainingJobStatus:
    """Status after the trainer's last words."""
    update: dict[str, Any] = {"attempt": max(result.attempt, status.attempt or 0) or None}
    if result.progress is not None:
        update["progress"] = formatted(result.progress, stage=None)
    if result.metrics is not None:
        update["metrics"] = readable(result.metrics)
    for name in ("checkpoint", "model", "report"):
        if (value := getattr(result, name)) is not None:
            update[name] = value
    return status.model_copy(update=update)


def formatted(progress: Progress, *, stage: Stage | None) -> Progress:
    """With the strings that `kubectl get` shows."""
    text = f"{progress.percent}%" if progress.steps else None
    epoch_text = f"{progress.epoch}/{progress.epochs}" if progress.epochs else None
    return progress.model_copy(
        update={
            "text": text,
            "epoch_text": epoch_text,
            "stage": stage.value if stage else None,
            "samples_per_second": _short(progress.samples_per_second, 1),
            "data_wait_percent": _short(progress.data_wait_percent, 1),
        }
    )


def finished(progress: Progress | None, *, told: bool) -> Progress:
    """Progress of a run that succeeded: nothing is left to wait for.

    `told` by the trainer's last words it stands as it is, since early stopping may have ended it before its
    last epoch; else it is all of it.
    """
    done = progress or Progress()
    if told and done.epoch < done.epochs:
        return done.model_copy(update={"eta": None, "stage": None})
    return done.model_copy(
        update={
            "percent": 100,
            "text": "100%",
            "eta": None,
            "stage": None,
            "step": max(done.step, done.steps),
            "epoch": max(done.epoch, done.epochs),
            "epoch_text": f"{done.epochs}/{done.epochs}" if done.epochs else None,
        }
    )


def without_pod(progress: Progress | None) -> Progress | None:
    """Progress while no pod is at work: how far it is, but no speed, stage or time left."""
    if progress is None:
        return None
    nothing = {"eta": None, "stage": None, "samples_per_second": None, "data_wait_percent": None}
    return progress.model_copy(update=nothing)


def without_stale(checkpoint: CheckpointStatus | None) -> CheckpointStatus | None:
    """Checkpoints when nothing waits to be committed."""
    return None if checkpoint is None else checkpoint.model_copy(update={"stale": None})


def readable(metrics: Metrics) -> Metrics:
    """Rounded, so that a column stays narrow and an unchanged value stays unchanged."""
    accuracy = None if metrics.accuracy is None else f"{metrics.accuracy * 100:.1f}%"
    return metrics.model_copy(
        update={
            "loss": _short(metrics.loss, LOSS_DIGITS),
            "character_error_rate": _short(metrics.character_error_rate, RATE_DIGITS),
            "upstream_acc": _short(metrics.upstream_acc, RATE_DIGITS),
            "accuracy_text": accuracy,
        }
    )


def _short(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
