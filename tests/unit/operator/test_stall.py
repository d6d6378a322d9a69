"""Stalled: True from the end of a pod that hung, until a newer pod has done a step."""

from dataclasses import replace

import pytest

from rectrain_api.report import ProgressReport, Stage
from rectrain_api.status import Phase, Progress, RecTrainingJobStatus
from rectrain_operator.decide import decide
from rectrain_operator.progress import finished
from rectrain_operator.seen import Seen
from tests.unit.operator import make
from tests.unit.operator.make import ended, report, running, seen, taken, words

HUNG = "No step, and no batch of an evaluation, for 30m after step 1234: the training process hung."
STALL = ended(70, message=words(70, "Stalled", HUNG, attempt=1))
NEXT = running("run-0-b")


def after(what: Seen) -> RecTrainingJobStatus:
    return decide(what, make.NOW).status


def told(status: RecTrainingJobStatus) -> tuple[str, str, str] | None:
    found = next((c for c in status.conditions if c.type == "Stalled"), None)
    return None if found is None else (found.status, found.reason, found.message)


def stepped(stage: Stage = Stage.TRAINING) -> ProgressReport:
    """Of a pod that has done a step."""
    progress = Progress(epoch=3, epochs=10, step=1300, steps=5000, percent=26, samples_per_second=80.0)
    return report(stage, attempt=2, sequence=9).model_copy(update={"progress": progress})


TRUE = ("True", "Stalled", HUNG)
FALSE = ("False", "Training", "A newer pod trains, and is at step 1300.")
STALLED = after(seen(STALL))
WENT_ON = after(seen(STALL, NEXT, status=STALLED, report=taken(NEXT, stepped())))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        pytest.param(seen(running(), report=taken(running(), stepped())), None, id="a-run-that-never-did"),
        pytest.param(seen(ended(70, message=words(70, "Diverged", "NaN."))), None, id="another-end"),
        pytest.param(seen(STALL), TRUE, id="hung"),
        pytest.param(seen(STALL, status=STALLED), TRUE, id="no-pod-yet"),
        pytest.param(seen(STALL, NEXT, status=STALLED), TRUE, id="the-next-pod-is-silent"),
        pytest.param(
            seen(STALL, NEXT, status=STALLED, report=taken(NEXT, report(Stage.STAGING, sequence=1))),
            TRUE,
            id="it-stages",
        ),
        pytest.param(
            seen(STALL, NEXT, status=STALLED, report=taken(NEXT, report(sequence=2))),
            TRUE,
            id="it-says-where-it-begins",
        ),
        pytest.param(
            seen(STALL, NEXT, status=STALLED, report=taken(running(), stepped())),
            TRUE,
            id="a-late-report-of-the-old-pod",
        ),
        pytest.param(
            seen(STALL, ended(137, "run-0-b", reason="OOMKilled"), status=STALLED),
            TRUE,
            id="the-next-pod-fails-before-its-first-step",
        ),
        pytest.param(
            seen(STALL, NEXT, status=STALLED, report=taken(NEXT, stepped())), FALSE, id="a-step-is-done"
        ),
        pytest.param(seen(STALL, NEXT, status=WENT_ON), FALSE, id="and-stays-so"),
        pytest.param(seen(batch=make.complete(), status=STALLED), "Completed", id="finished"),
        pytest.param(
            seen(STALL, batch=make.job_failed("BackoffLimitExceeded")), TRUE, id="the-last-restart-hung-too"
        ),
    ],
)
def test_when_it_holds(what: Seen, expected: tuple[str, str, str] | str | None) -> None:
    decision = decide(what, make.NOW)
    found = told(decision.status)
    assert (found[1] if found and isinstance(expected, str) else found) == expected
    again = decide(replace(what, status=decision.status), make.NOW)
    assert again.status == decision.status
    assert again.events == ()


def test_status_and_events_say_what_to_do() -> None:
    decision = decide(seen(STALL), make.NOW)
    assert decision.status.phase is Phase.RESTARTING
    assert decision.status.message.startswith(f"Restarting after Stalled: {HUNG}")
    warned = [(e.kind, e.message, e.key) for e in decision.events if e.reason == "Stalled"]
    assert warned == [("Warning", HUNG, "stalled-0")]
    again = ended(70, "run-0-b", message=words(70, "Stalled", "Hung again."))
    events = decide(seen(STALL, again, status=WENT_ON), make.NOW).events
    assert [(e.message, e.key) for e in events if e.reason == "Stalled"] == [("Hung again.", "stalled-1")]


def test_a_run_that_stopped_early_isnt_shown_as_all_of_its_epochs() -> None:
    last = Progress(epoch=12, epochs=100, step=600, steps=5000, percent=12, text="12%", epoch_text="12/100")
    said = words(0, "Completed", "Stopped early in epoch 12 of 100.", progress=last)
    status = after(seen(ended(0, message=said), batch=make.complete()))
    assert status.phase is Phase.SUCCEEDED
    assert status.progress == last
    assert status.message == "Stopped early in epoch 12 of 100."
    assert finished(last, told=False).epoch_text == "100/100", "nobody knows better"
