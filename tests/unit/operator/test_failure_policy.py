"""What each end of a pod is called, and what it costs."""

import pytest

from rectrain_api.status import COUNTED_KEPT, RecTrainingJobStatus, Restarts
from rectrain_operator.failure_policy import classify, count, to_blame
from rectrain_operator.views import Note, PodView
from tests.unit.operator import make
from tests.unit.operator.make import ended, pod, running, words

EVICTED = Note("EvictionByEvictionAPI", "Eviction API: evicting", make.JUST_NOW)
DELETED = {"deletion": make.JUST_NOW}


@pytest.mark.parametrize(
    ("end", "suspending", "cause", "reason"),
    [
        pytest.param(ended(0, message=make.result()), False, "success", "Completed", id="done"),
        pytest.param(ended(65), False, "final", "DatasetInvalid", id="bad-labels-never-retry"),
        pytest.param(
            ended(78, message=words(78, "RunConflict", "Taken.")),
            False,
            "final",
            "RunConflict",
            id="the-trainers-own-reason",
        ),
        pytest.param(ended(69), False, "failure", "StoreUnavailable", id="s3-away-counts"),
        pytest.param(ended(70), False, "failure", "InternalError", id="our-fault-counts"),
        pytest.param(ended(71), False, "failure", "NodeFault", id="node-fault-counts"),
        pytest.param(ended(1), False, "failure", "Crashed", id="unknown-code-counts"),
        pytest.param(ended(139), False, "failure", "Crashed", id="segfault-counts"),
        pytest.param(ended(75), False, "disruption", "Interrupted", id="sigterm-costs-nothing"),
        pytest.param(ended(76), False, "disruption", "Fenced", id="fenced-costs-nothing"),
        pytest.param(ended(137, reason="OOMKilled"), False, "oom", "OutOfMemory", id="oom"),
        pytest.param(
            ended(0, reason="OOMKilled", phase="Failed"), False, "oom", "OutOfMemory", id="oom-with-code-0"
        ),
        pytest.param(ended(137), False, "oom", "OutOfMemory", id="137-without-deletion-is-oom"),
        pytest.param(
            ended(137, **DELETED), False, "failure", "Disrupted", id="137-after-deletion-is-grace-but-counts"
        ),
        pytest.param(ended(143, **DELETED), False, "failure", "Disrupted", id="143-after-deletion-counts"),
        pytest.param(ended(1, **DELETED), False, "failure", "Crashed", id="crash-after-deletion-counts"),
        pytest.param(
            ended(75, **DELETED), False, "disruption", "Interrupted", id="75-after-deletion-costs-nothing"
        ),
        pytest.param(ended(65, **DELETED), False, "final", "DatasetInvalid", id="final-after-deletion"),
        pytest.param(ended(75, **DELETED), True, "suspend", "SuspendRequested", id="suspend"),
        pytest.param(ended(137, **DELETED), True, "suspend", "SuspendRequested", id="suspend-too-slow"),
        pytest.param(ended(143, disruption=EVICTED), False, "disruption", "Disrupted", id="evicted"),
        pytest.param(
            ended(137, reason="OOMKilled", disruption=EVICTED),
            False,
            "disruption",
            "Disrupted",
            id="disruption-wins",
        ),
        pytest.param(
            running(phase="Failed", disruption=EVICTED),
            False,
            "disruption",
            "Disrupted",
            id="lost-with-its-node",
        ),
        pytest.param(running(gone=True), False, "disruption", "Disrupted", id="force-deleted"),
        pytest.param(running(gone=True), True, "suspend", "SuspendRequested", id="suspended-unseen"),
        pytest.param(pod(gone=True), False, "unstarted", "NotRunning", id="never-ran"),
        pytest.param(
            pod(phase="Failed", failure=Note("OutOfcpu", "Node didn't have enough")),
            False,
            "failure",
            "OutOfcpu",
            id="refused-by-the-node",
        ),
        pytest.param(
            ended(70, message=words(75, "Interrupted", "Old words.")),
            False,
            "failure",
            "InternalError",
            id="words-of-another-end",
        ),
    ],
)
def test_classify(end: PodView, suspending: bool, cause: str, reason: str) -> None:
    found = classify(end, suspending=suspending, now=make.NOW)
    assert (found.cause, found.reason) == (cause, reason)
    assert found.message


def counting(
    status: RecTrainingJobStatus, *pods: PodView, max_restarts: int = 3, decided: str = ""
) -> RecTrainingJobStatus:
    ledger = count(status, pods, suspending=False, max_restarts=max_restarts, now=make.NOW, decided=decided)
    return status.model_copy(
        update={
            "restarts": ledger.restarts,
            "last_interruption": ledger.last,
            "counted_pods": ledger.counted,
        }
    )


def test_each_pod_counts_once() -> None:
    pods = (ended(137, "run-0-a"), ended(75, "run-0-b"), ended(69, "run-0-c"))
    once = counting(RecTrainingJobStatus(), *pods)
    assert once.restarts == Restarts(oom=1, disruption=1, failure=1)
    assert counting(once, *pods) == once


def test_the_last_failure_is_no_restart() -> None:
    pods = [ended(69, f"run-0-{c}", at=f"2026-01-02T11:0{n}:00Z") for n, c in enumerate("abc")]
    status = counting(RecTrainingJobStatus(), *pods, max_restarts=2)
    assert status.restarts == Restarts(failure=2)
    assert status.last_interruption is not None
    assert status.last_interruption.pod == "run-0-b"


def test_an_end_that_closes_the_run_is_no_restart() -> None:
    status = counting(RecTrainingJobStatus(), ended(65))
    assert status.restarts == Restarts()
    assert status.last_interruption is None


def test_pods_that_fell_off_the_list_are_not_counted_again() -> None:
    pods = [
        ended(75, f"run-0-{n:03}", at=f"2026-01-02T{n // 60:02}:{n % 60:02}:00Z")
        for n in range(COUNTED_KEPT + 20)
    ]
    status = RecTrainingJobStatus()
    for number in range(1, len(pods) + 1):
        status = counting(status, *pods[:number])
    assert status.restarts == Restarts(disruption=len(pods))
    assert len(status.counted_pods) == COUNTED_KEPT
    assert counting(status, *pods) == status


def test_undated_ends_are_not_counted_again() -> None:
    pods = [
        pod(
            f"run-0-{n:03}",
            phase="Failed",
            failure=Note("OutOfcpu", "No room."),
            changed=f"2026-01-02T{n // 60:02}:{n % 60:02}:00Z",
        )
        for n in range(COUNTED_KEPT + 8)
    ]
    status = RecTrainingJobStatus()
    for number in range(1, len(pods) + 1):
        status = counting(status, *pods[:number], max_restarts=999)
    assert status.restarts == Restarts(failure=len(pods))
    assert counting(status, *pods, max_restarts=999) == status


def test_pods_of_every_index_count() -> None:
    pods = (
        ended(75, "run-0-a"),
        ended(137, "run-1-b", index=1, reason="OOMKilled"),
        ended(69, "run-2-c", index=2),
        ended(0, "run-3-d", index=3),
    )
    once = counting(RecTrainingJobStatus(), *pods)
    assert once.restarts == Restarts(disruption=1, oom=1, failure=1)
    assert counting(once, *pods) == once


def test_failures_of_all_indexes_spend_the_same_restarts() -> None:
    pods = [ended(69, f"run-{n}-a", index=n, at=f"2026-01-02T11:0{n}:00Z") for n in range(3)]
    status = counting(RecTrainingJobStatus(), *pods, max_restarts=2)
    assert status.restarts == Restarts(failure=2)
    assert status.last_interruption is not None
    assert status.last_interruption.pod == "run-1-a"


def test_as_many_pods_as_a_run_may_have_count_once_when_all_end_at_once() -> None:
    pods = [ended(75, f"run-{n}-a", index=n) for n in range(64)]
    once = counting(RecTrainingJobStatus(), *pods)
    assert once.restarts == Restarts(disruption=64)
    assert counting(once, *pods) == once


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param("2026-01-02T11:59:57Z", Restarts(disruption=1), id="before"),
        pytest.param(make.JUST_NOW, Restarts(), id="in-the-same-second"),
        pytest.param("2026-01-02T11:59:59Z", Restarts(), id="after"),
    ],
)
def test_who_stops_since_the_end_is_decided_is_not_replaced(at: str, expected: Restarts) -> None:
    pods = [ended(75, "run-1-a", index=1, at=at)]
    status = counting(RecTrainingJobStatus(), *pods, decided=make.JUST_NOW)
    assert status.restarts == expected
    assert (status.last_interruption is None) == (expected == Restarts())
    assert status.counted_pods == ["uid-run-1-a"]


FIRST, SECOND = "2026-01-02T11:00:01Z", "2026-01-02T11:00:02Z"


@pytest.mark.parametrize(
    ("pods", "blamed"),
    [
        pytest.param([], None, id="nobody"),
        pytest.param(
            [ended(65, "run-1-b", index=1, at=FIRST), ended(75, "run-0-a", at=SECOND)],
            "run-1-b",
            id="what-never-passes-before-who-was-told",
        ),
        pytest.param(
            [ended(65, "run-1-b", index=1, at=FIRST), ended(70, "run-0-a", at=SECOND)],
            "run-1-b",
            id="what-never-passes-before-a-failure",
        ),
        pytest.param(
            [ended(137, "run-0-a", at=FIRST), ended(75, "run-1-b", index=1, at=SECOND)],
            "run-0-a",
            id="out-of-memory-before-who-was-told",
        ),
        pytest.param(
            [ended(69, "run-0-b", at=FIRST), ended(137, "run-1-a", index=1, at=SECOND, **DELETED)],
            "run-0-b",
            id="a-failure-before-who-was-told-and-was-slow",
        ),
        pytest.param(
            [ended(70, "run-1-b", index=1, at=SECOND), ended(70, "run-0-a", at=FIRST)],
            "run-1-b",
            id="the-newest-failure",
        ),
        pytest.param(
            [ended(75, "run-1-b", index=1, at=SECOND), ended(75, "run-0-a", at=FIRST)],
            "run-1-b",
            id="else-the-newest",
        ),
    ],
)
def test_to_blame(pods: list[PodView], blamed: str | None) -> None:
    end = to_blame([classify(p, suspending=False, now=make.NOW) for p in pods])
    assert (end and end.pod.name) == blamed
