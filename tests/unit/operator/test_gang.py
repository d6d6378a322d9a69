"""`decide` for a run of several pods: it trains when all are there, and index 0 has the last word."""

from dataclasses import replace
from typing import Any

import pytest

from rectrain_api.report import Stage
from rectrain_api.status import Interruption, Metrics, Phase, Progress, RecTrainingJobStatus, Restarts
from rectrain_operator.decide import decide
from rectrain_operator.seen import Seen
from rectrain_operator.views import Note, PodView
from tests.unit.operator import make
from tests.unit.operator.make import ended, gang, pod, report, running, taken, words

SUSPEND = make.run(policy={"suspend": True})
NO_ROOM = Note("Unschedulable", "0/3 nodes: 3 Insufficient nvidia.com/gpu")
TRAINED = make.STARTED.model_copy(
    update={
        "phase": Phase.RUNNING,
        "pod": "run-0-a",
        "attempt": 1,
        "report_sequence": 5,
        "progress": Progress(
            epoch=3, epochs=10, step=210, steps=500, percent=42, eta="12m", stage="Training"
        ),
    }
)
INTERRUPTED = make.STARTED.model_copy(
    update={
        "last_interruption": Interruption(
            reason="Disrupted", message="Node gone.", time=make.JUST_NOW, pod="run-1-a"
        ),
        "restarts": Restarts(disruption=1),
        "counted_pods": ["uid-run-1-a"],
    }
)


def peer(name: str = "run-1-b", **changes: Any) -> PodView:
    """A pod of index 1 that runs."""
    return running(name, **{"index": 1, **changes})


def seen(*pods: PodView, **more: Any) -> Seen:
    """A run of two pods."""
    return make.seen(*pods, **{"batch": gang(), **more})


@pytest.mark.parametrize(
    ("what", "expected", "reason", "message"),
    [
        pytest.param(
            seen(running(), peer(), report=taken(running())),
            Phase.RUNNING,
            "Training",
            "Training.",
            id="all-run",
        ),
        pytest.param(
            seen(running(), peer(), report=taken(peer())),
            Phase.PREPARING,
            "Staging",
            "The trainer is starting.",
            id="only-index-0-is-heard",
        ),
        pytest.param(
            seen(running(), peer(phase="Succeeded", running=False), report=taken(running())),
            Phase.RUNNING,
            "Training",
            "Training.",
            id="a-peer-is-done",
        ),
        pytest.param(
            seen(pod(), pod("run-1-b", index=1)),
            Phase.PENDING,
            "WaitingForPod",
            "0 of 2 pods run; pod 0: Waiting for a node.",
            id="none-yet",
        ),
        pytest.param(
            seen(running(), pod("run-1-b", index=1, unschedulable=NO_ROOM), report=taken(running())),
            Phase.PENDING,
            "Unschedulable",
            "1 of 2 pods runs; pod 1: No node fits the pod: 0/3 nodes: 3 Insufficient nvidia.com/gpu",
            id="a-peer-does-not-fit",
        ),
        pytest.param(
            seen(pod(node="node-1"), peer()),
            Phase.PENDING,
            "WaitingForPod",
            "1 of 2 pods runs; pod 0: Node node-1 is starting the pod.",
            id="index-0-comes-later",
        ),
        pytest.param(
            seen(
                running(),
                peer(),
                pod("run-2-c", index=2),
                pod("run-3-d", index=3, unschedulable=NO_ROOM),
                batch=gang(4),
            ),
            Phase.PENDING,
            "WaitingForPod",
            "2 of 4 pods run; pod 2: Waiting for a node.",
            id="the-first-that-is-lacking",
        ),
        pytest.param(
            seen(running(), status=make.STARTED.model_copy(update={"start_time": make.JUST_NOW})),
            Phase.PENDING,
            "WaitingForPod",
            "1 of 2 pods runs; pod 1: Waiting for the Job controller to make the pod.",
            id="a-peer-not-made-yet",
        ),
        pytest.param(
            seen(running(), peer(job_uid="older-job"), status=INTERRUPTED),
            Phase.RESTARTING,
            "Restarting",
            "1 of 2 pods runs; pod 1: Restarting after Disrupted: Node gone.",
            id="a-peer-of-an-older-job",
        ),
        pytest.param(
            seen(running(), pod("run-1-b", index=1), report=taken(running()), status=INTERRUPTED),
            Phase.RESTARTING,
            "WaitingForPod",
            "1 of 2 pods runs; pod 1: Waiting for a node. (The last pod ended: Disrupted.)",
            id="a-peer-is-replaced",
        ),
        pytest.param(
            seen(
                running(), ended(75, "run-1-b", index=1, at="2026-01-02T11:58:00Z"), report=taken(running())
            ),
            Phase.RESTARTING,
            "Restarting",
            "1 of 2 pods runs; pod 1: Restarting after Interrupted: The trainer ended with exit code 75.",
            id="a-peer-was-told-to-stop",
        ),
        pytest.param(
            seen(running(), peer(unheard=make.JUST_NOW), report=taken(running())),
            Phase.RESTARTING,
            "NodeLost",
            f"1 of 2 pods runs; pod 1: Node node-1 hasn't been heard since {make.JUST_NOW}.",
            id="a-peers-node-not-heard",
        ),
        pytest.param(
            seen(running(deletion="2026-01-02T11:59:30Z"), peer()),
            Phase.RESTARTING,
            "NodeLost",
            "1 of 2 pods runs; pod 0: Node node-1 doesn't confirm",
            id="the-node-of-index-0-is-gone",
        ),
        pytest.param(
            seen(running(), peer(deletion="2026-01-02T12:00:20Z"), report=taken(running())),
            Phase.RUNNING,
            "Training",
            "Training.",
            id="a-peer-is-saving",
        ),
        pytest.param(
            seen(running(), peer(), run=SUSPEND),
            Phase.SUSPENDING,
            "SuspendRequested",
            "Suspending: the pods are saving a last checkpoint.",
            id="suspend-asked",
        ),
        pytest.param(
            seen(ended(75, deletion=make.JUST_NOW), peer(), batch=gang(suspend=True), run=SUSPEND),
            Phase.SUSPENDING,
            "SuspendRequested",
            "Suspending",
            id="a-peer-is-left-to-suspend",
        ),
        pytest.param(
            seen(
                ended(75, deletion=make.JUST_NOW),
                peer(job_uid="older-job"),
                batch=gang(suspend=True),
                run=SUSPEND,
            ),
            Phase.SUSPENDED,
            "SuspendRequested",
            "Suspended",
            id="suspended",
        ),
        pytest.param(
            seen(ended(0, message=make.result()), peer()),
            Phase.RUNNING,
            "Completed",
            "Finished; waiting for the Job to close.",
            id="index-0-is-done",
        ),
        pytest.param(
            seen(running(), batch=gang(succeeding=Note("SuccessPolicy", "", make.JUST_NOW))),
            Phase.PREPARING,
            "Staging",
            "The trainer is starting.",
            id="the-end-of-index-0-not-seen-yet",
        ),
        pytest.param(
            seen(
                running(),
                ended(65, "run-1-b", index=1),
                batch=gang(failing=Note("PodFailurePolicy", "", make.JUST_NOW)),
                status=TRAINED,
            ),
            Phase.RUNNING,
            "Failing",
            "The run has failed; it is closed when the pods that are left have stopped.",
            id="the-others-are-told-to-stop",
        ),
    ],
)
def test_phase_and_message(what: Seen, expected: Phase, reason: str, message: str) -> None:
    status = decide(what, make.NOW).status
    assert status.phase is expected
    assert (status.message or "").startswith(message)
    found = {c.type: (c.status, c.reason) for c in status.conditions}["Running"]
    assert found == ("True" if expected is Phase.RUNNING else "False", reason)


def test_the_current_pod_is_index_0s() -> None:
    status = decide(seen(running(), peer(node="node-2")), make.NOW).status
    assert (status.pod, status.node) == ("run-0-a", "node-1")


def test_a_wait_is_looked_at_again() -> None:
    assert decide(seen(running(), ended(75, "run-1-b", index=1)), make.NOW).requeue_after_s == 9
    young = make.STARTED.model_copy(update={"start_time": make.JUST_NOW})
    assert decide(seen(running(), status=young), make.NOW).requeue_after_s == 29


def stage_and_eta(status: RecTrainingJobStatus) -> tuple[str | None, str | None]:
    assert status.progress is not None
    return status.progress.stage, status.progress.eta


def test_without_a_peer_nothing_is_trained_whatever_index_0_said() -> None:
    says = {"report": taken(running(), report(sequence=5))}
    lost = decide(seen(running(), ended(75, "run-1-b", index=1), status=TRAINED, **says), make.NOW).status
    assert stage_and_eta(lost) == (None, None)
    assert (lost.progress and lost.progress.percent) == 42
    replaced = decide(seen(running(), pod("run-1-c", index=1), status=lost, **says), make.NOW).status
    assert replaced.phase is Phase.RESTARTING
    back = seen(running(), peer("run-1-c"), status=replaced)
    assert decide(replace(back, report=says["report"]), make.NOW).status.phase is Phase.PREPARING
    fresh = taken(running(), report(attempt=2, sequence=6))
    trains = decide(replace(back, report=fresh), make.NOW).status
    assert trains.phase is Phase.RUNNING
    assert stage_and_eta(trains) == ("Training", "12m")


def test_a_last_report_of_a_broken_round_shows_no_training() -> None:
    last = taken(running(), report(sequence=6))
    status = decide(
        seen(running(), peer(unheard=make.JUST_NOW), status=TRAINED, report=last), make.NOW
    ).status
    assert stage_and_eta(status) == (None, None)
    assert status.report_sequence == 6


def test_what_index_0_said_before_training_holds_while_it_waits_for_a_peer() -> None:
    waits = taken(running(), report(Stage.STAGING, message="Waiting for the other pods of the run."))
    lacking = decide(seen(running(), pod("run-1-b", index=1), report=waits), make.NOW).status
    assert "1 of 2 pods" in (lacking.message or "")
    there = decide(seen(running(), peer(), report=waits, status=lacking), make.NOW).status
    assert (there.phase, there.message) == (Phase.PREPARING, "Waiting for the other pods of the run.")


def test_a_peer_that_ends_well_is_not_the_end() -> None:
    said = words(
        0, "Completed", "", attempt=9, progress=Progress(percent=100, steps=1), metrics=Metrics(accuracy=0.1)
    )
    status = decide(
        seen(running(), ended(0, "run-1-b", index=1, message=said), status=TRAINED), make.NOW
    ).status
    assert status.metrics is None
    assert status.attempt == 1
    assert (status.progress and status.progress.percent) == 42
    assert "Succeeded" not in {c.type for c in status.conditions}
    without_0 = decide(seen(ended(0, "run-1-b", index=1, message=said)), make.NOW).status
    assert without_0.phase is Phase.PENDING


def test_success_is_told_by_index_0() -> None:
    batch = replace(make.complete(), completions=2)
    said = words(0, "AlreadyComplete", "Nothing to do.")
    done = ended(0, message=make.result())
    other = ended(0, "run-1-b", index=1, message=said)
    status = decide(seen(done, other, batch=batch), make.NOW).status
    assert status.phase is Phase.SUCCEEDED
    assert "10 epochs (500 steps), accuracy 97.2%" in (status.message or "")
    unread = decide(seen(other, batch=batch), make.NOW).status
    assert {c.type: c.reason for c in unread.conditions}["Succeeded"] == "ResultUnread"


def test_peers_that_are_stopped_when_index_0_is_done_are_no_restarts() -> None:
    decided = Note("SuccessPolicy", "", make.JUST_NOW)
    stopped = ended(75, "run-1-b", index=1, at="2026-01-02T11:59:59Z", deletion=make.JUST_NOW)
    done = ended(0, message=make.result())
    closing = decide(seen(done, stopped, batch=gang(succeeding=decided)), make.NOW).status
    closed = replace(make.complete(), completions=2, succeeding=decided)
    for status in (closing, decide(seen(done, stopped, batch=closed), make.NOW).status):
        assert status.restarts == Restarts()
        assert status.last_interruption is None


BAD_DATA = words(65, "DatasetInvalid", "Line 7 has no tab.")
TOLD = words(75, "Interrupted", "Told to stop.", attempt=3, checkpoint=make.checkpoint())


def test_a_failure_is_told_by_the_pod_that_failed() -> None:
    status = decide(
        seen(
            ended(75, message=TOLD, at="2026-01-02T11:59:59Z"),
            ended(65, "run-1-b", index=1, message=BAD_DATA),
            batch=make.job_failed("PodFailurePolicy", completions=2),
        ),
        make.NOW,
    ).status
    assert status.phase is Phase.FAILED
    assert status.message == "Line 7 has no tab."
    assert status.attempt == 3
    assert status.checkpoint == make.checkpoint()


def test_restarts_are_exhausted_by_the_pod_that_failed() -> None:
    said = words(70, "InternalError", "Boom.", progress=Progress(percent=1), metrics=Metrics(loss=9.0))
    status = decide(
        seen(
            ended(75, message=TOLD, at="2026-01-02T11:59:59Z"),
            ended(70, "run-1-b", index=1, message=said),
            batch=make.job_failed("BackoffLimitExceeded", completions=2),
            status=TRAINED,
        ),
        make.NOW,
    ).status
    assert {c.type: c.reason for c in status.conditions}["Failed"] == "RestartsExhausted"
    assert "InternalError: Boom." in (status.message or "")
    assert (status.progress and status.progress.percent) == 42
    assert status.metrics is None


@pytest.mark.parametrize(
    "what",
    [
        seen(running(), peer(), report=taken(running())),
        seen(running(), pod("run-1-b", index=1), report=taken(running())),
        seen(running(), ended(137, "run-1-b", index=1, reason="OOMKilled"), report=taken(running())),
        seen(ended(75), ended(75, "run-1-b", index=1)),
        seen(running(), peer(unheard=make.JUST_NOW), report=taken(running()), status=TRAINED),
    ],
)
def test_deciding_again_changes_nothing(what: Seen) -> None:
    once = decide(what, make.NOW)
    twice = decide(replace(what, status=once.status), make.NOW)
    assert twice.status == once.status
    assert twice.events == ()
