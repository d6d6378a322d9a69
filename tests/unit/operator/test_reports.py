"""Order of reports, and how soon status shows them."""

import pytest

from rectrain_api.report import ProgressReport, Stage
from rectrain_api.status import CheckpointStatus, Metrics, RecTrainingJobStatus, StaleCheckpoint
from rectrain_operator.keys import JobKey
from rectrain_operator.reports import LATE_S, SOON_S, ReportStore, matters, refusal
from rectrain_operator.seen import Taken
from tests.unit.operator.make import checkpoint, report, running, taken
from tests.unit.operator.test_queue import Clock

KEY = JobKey("team", "run")
STALE = StaleCheckpoint(since="2026-01-02T11:30:00Z", reason="StoreUnavailable")
STORED = RecTrainingJobStatus(attempt=2, report_sequence=7, pod="run-0-a")


@pytest.mark.parametrize(
    ("last", "pod", "new", "refused"),
    [
        pytest.param(None, "run-0-a", report(attempt=2, sequence=8), False, id="next"),
        pytest.param(
            None, "run-0-a", report(attempt=2, sequence=7), True, id="again-after-a-restart-of-ours"
        ),
        pytest.param(None, "run-0-b", report(attempt=3, sequence=1), False, id="next-pod"),
        pytest.param(None, "run-0-b", report(attempt=0, sequence=1), False, id="next-pod-not-at-the-log-yet"),
        pytest.param(None, "run-0-b", report(attempt=1, sequence=9), True, id="lower-attempt"),
        pytest.param(
            taken(running("run-0-b"), report(attempt=3, sequence=4)),
            "run-0-b",
            report(attempt=3, sequence=5),
            False,
            id="next-in-memory",
        ),
        pytest.param(
            taken(running("run-0-b"), report(attempt=3, sequence=4)),
            "run-0-b",
            report(attempt=3, sequence=4),
            True,
            id="same-in-memory",
        ),
        pytest.param(
            taken(running("run-0-b"), report(attempt=3, sequence=4)),
            "run-0-b",
            report(attempt=0, sequence=5),
            True,
            id="back-before-the-log",
        ),
        pytest.param(
            taken(running("run-0-b"), report(attempt=3, sequence=4)),
            "run-0-c",
            report(attempt=4, sequence=1),
            False,
            id="another-pod-in-memory",
        ),
    ],
)
def test_refusal(last: Taken | None, pod: str, new: ProgressReport, refused: bool) -> None:
    assert (refusal(STORED, last, pod, new) is not None) is refused


@pytest.mark.parametrize(
    ("after", "at_once"),
    [
        pytest.param(report(sequence=6), False, id="nothing-new"),
        pytest.param(report(percent=43), True, id="one-percent"),
        pytest.param(report(Stage.EVALUATING), True, id="stage"),
        pytest.param(report(message="S3 is away since 12:00."), True, id="sentence"),
        pytest.param(report(checkpoint=checkpoint()), True, id="checkpoint"),
        pytest.param(report(checkpoint=CheckpointStatus(stale=STALE)), True, id="stale"),
        pytest.param(report(metrics=Metrics(accuracy=0.9)), True, id="accuracy"),
        pytest.param(report(metrics=Metrics(loss=0.9)), False, id="loss"),
        pytest.param(report(report="s3://runs/run/report/index.html"), True, id="report"),
    ],
)
def test_matters(after: ProgressReport, at_once: bool) -> None:
    assert matters(report(), after) is at_once


def test_reports_are_shown_at_once_then_not_too_often() -> None:
    clock = Clock()
    store = ReportStore(clock)
    first = taken(running())
    assert store.put(KEY, first) == 0
    store.shown(KEY, first)
    assert store.put(KEY, taken(running(), report(sequence=6))) == LATE_S
    assert store.put(KEY, taken(running(), report(percent=43, sequence=7))) == SOON_S
    clock.now += 10
    assert store.put(KEY, taken(running(), report(sequence=8))) == LATE_S - 10
    store.shown(KEY, first)
    assert store.put(KEY, taken(running(), report(sequence=9))) == LATE_S - 10, "shown only once"
    store.forget(KEY)
    assert store.get(KEY) is None
