"""Makes what the tables of these tests need: runs, Jobs, pods, reports."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rectrain_api.report import ProgressReport, Stage, TerminationResult
from rectrain_api.status import (
    CheckpointRef,
    CheckpointStatus,
    Metrics,
    ModelStatus,
    Progress,
    RecTrainingJobStatus,
)
from rectrain_operator.seen import Seen, Taken
from rectrain_operator.settings import PodSettings
from rectrain_operator.views import JobView, Note, PodView, Terminated

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
EARLIER = "2026-01-02T11:00:00Z"
JUST_NOW = "2026-01-02T11:59:58Z"
SETTINGS = PodSettings("trainer:test", "https://reports:8443", "CA")
PRESENT = frozenset({"ConfigMap/run-run", "ConfigMap/run-ca", "Service/run"})
STARTED = RecTrainingJobStatus(job_name="run", start_time=EARLIER)


def run(*, preset: str = "svtr_nano", policy: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A manifest as the API server gives it."""
    return {
        "apiVersion": "rectrain.dev/v1alpha1",
        "kind": "RecTrainingJob",
        "metadata": {
            "name": "run",
            "namespace": "team",
            "uid": "run-uid",
            "generation": 1,
            "resourceVersion": "7",
        },
        "spec": {
            "model": {"preset": preset},
            "data": {"train": "s3://data/set"},
            "checkpoint": {"uri": "s3://runs/run/"},
            "runPolicy": {"maxRestarts": 3, "suspend": False, **(policy or {})},
            **spec,
        },
    }


def job(**changes: Any) -> JobView:
    """The run's Job, running."""
    return replace(JobView("run", "job-uid", 1, "run-uid", suspend=False, backoff_limit=3), **changes)


def complete() -> JobView:
    """The run's Job, complete."""
    return job(complete=Note("CompletionsReached", "", JUST_NOW))


def job_failed(reason: str, **changes: Any) -> JobView:
    """The run's Job, failed."""
    return job(failed=Note(reason, "said the Job controller", JUST_NOW), **changes)


def gang(nodes: int = 2, **changes: Any) -> JobView:
    """The Job of a run of several pods."""
    return job(completions=nodes, **changes)


def pod(name: str = "run-0-a", **changes: Any) -> PodView:
    """A pod of the Job, waiting."""
    base = PodView(
        name=name,
        uid=f"uid-{name}",
        version=1,
        namespace="team",
        job_uid="job-uid",
        created=f"2026-01-02T11:{10 + ord(name[-1]) % 40}:00Z",
        index=0,
        phase="Pending",
    )
    return replace(base, **changes)


def running(name: str = "run-0-a", **changes: Any) -> PodView:
    """A pod whose trainer runs."""
    return pod(name, **{"phase": "Running", "running": True, "node": "node-1", **changes})


def ended(
    code: int,
    name: str = "run-0-a",
    *,
    message: str = "",
    reason: str = "Error",
    at: str = JUST_NOW,
    **changes: Any,
) -> PodView:
    """A pod whose trainer has ended."""
    phase = "Succeeded" if code == 0 else "Failed"
    why = "Completed" if code == 0 and reason == "Error" else reason
    terminated = Terminated(code, why, message, at)
    return running(name, **{"phase": phase, "running": False, "terminated": terminated, **changes})


def words(code: int, reason: str, message: str, **more: Any) -> str:
    """A termination message of the trainer."""
    return TerminationResult(exit_code=code, reason=reason, message=message, **more).to_termination_message()


def checkpoint(step: int = 100) -> CheckpointStatus:
    """A committed checkpoint."""
    ref = CheckpointRef(uri=f"s3://runs/run/step-{step}", step=step, epoch=1, time=EARLIER, bytes=9)
    return CheckpointStatus(latest=ref, best=ref)


def result() -> str:
    """The last words of a run that went well."""
    return words(
        0,
        "Completed",
        "",
        attempt=1,
        progress=Progress(epoch=10, epochs=10, step=500, steps=500, percent=100),
        metrics=Metrics(loss=0.012345, accuracy=0.9725, character_error_rate=1 / 3, upstream_acc=0.99999001),
        checkpoint=checkpoint(500),
        model=ModelStatus(uri="s3://runs/run/export"),
        report="s3://runs/run/report/index.html",
    )


def report(
    stage: Stage = Stage.TRAINING, *, percent: int = 42, attempt: int = 1, sequence: int = 5, **more: Any
) -> ProgressReport:
    """A progress report."""
    progress = Progress(epoch=3, epochs=10, step=percent * 5, steps=500, percent=percent, eta="12m")
    return ProgressReport(attempt=attempt, sequence=sequence, stage=stage, progress=progress, **more)


def taken(of: PodView, what: ProgressReport | None = None) -> Taken:
    """A report accepted from a pod."""
    return Taken(of.name, of.uid, what or report())


def seen(
    *pods: PodView, batch: JobView | None = None, status: RecTrainingJobStatus = STARTED, **more: Any
) -> Seen:
    """What is seen of a run with a Job and these pods."""
    defaults: dict[str, Any] = {"run": run(), "settings": SETTINGS, "present": PRESENT}
    return Seen(status=status, batch=batch or job(), pods=pods, **{**defaults, **more})
