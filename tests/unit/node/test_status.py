"""Phases, conditions, restarts: what the control plane is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rectrain_local.node.lost import is_over, lost_status, was_running
from rectrain_local.node.probes import Threshold
from rectrain_local.node.restart import Backoff, runs_again
from rectrain_local.node.status import ContainerRecord, Kind, PodView, build, phase

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POD: dict[str, Any] = {"metadata": {"name": "p", "namespace": "n"}, "spec": {}, "status": {}}


def one(state: str, kind: Kind = "main", **more: Any) -> ContainerRecord:
    states: dict[str, Any] = {
        "waiting": {"waiting": {"reason": "ContainerCreating"}},
        "running": {"running": {"startedAt": "t"}},
        "good": {"terminated": {"exitCode": 0}},
        "bad": {"terminated": {"exitCode": 1}},
    }
    return ContainerRecord("c", "image", kind, states[state], **more)


def view(*containers: ContainerRecord, finished: bool = False, failure: Any = None, **pod: Any) -> PodView:
    return PodView(POD | pod, "127.64.0.1", "127.0.0.1", NOW, containers, True, finished, failure)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(view(one("waiting")), "Pending", id="new"),
        pytest.param(view(one("running")), "Running", id="running"),
        pytest.param(view(one("good"), one("running")), "Running", id="one-of-two-done"),
        pytest.param(view(one("waiting", last_state={"terminated": {}})), "Running", id="crash-loop"),
        pytest.param(view(one("good")), "Running", id="not-known-to-be-over"),
        pytest.param(view(one("good"), finished=True), "Succeeded", id="succeeded"),
        pytest.param(view(one("good"), one("bad"), finished=True), "Failed", id="one-failed"),
        pytest.param(view(one("good"), finished=True, failure=("R", "m")), "Failed", id="node-ended-it"),
        pytest.param(view(one("running", "init"), one("waiting")), "Pending", id="initializing"),
        pytest.param(view(one("bad", "init"), one("waiting"), finished=True), "Failed", id="init-failed"),
        pytest.param(view(one("good", "init"), one("running")), "Running", id="initialized"),
        pytest.param(view(one("bad", "sidecar"), one("good"), finished=True), "Succeeded", id="sidecar-code"),
    ],
)
def test_phase(seen: PodView, expected: str) -> None:
    assert phase(seen) == expected


def conditions(seen: PodView) -> dict[str, tuple[str, str | None]]:
    return {c["type"]: (c["status"], c["reason"]) for c in build(seen, [], NOW)["conditions"]}


def test_conditions() -> None:
    ready = conditions(view(one("running", ready=True)))
    assert {status for status, _ in ready.values()} == {"True"}
    unready = conditions(view(one("running")))
    assert unready["Ready"] == unready["ContainersReady"] == ("False", "ContainersNotReady")
    assert unready["Initialized"][0] == "True"
    starting = conditions(view(one("waiting", "init"), one("waiting")))
    assert starting["Initialized"] == ("False", "ContainersNotInitialized")
    done = conditions(view(one("good"), finished=True))
    assert done["Ready"] == ("False", "PodCompleted")
    gated = conditions(view(one("running", ready=True), spec={"readinessGates": [{"conditionType": "x/y"}]}))
    assert gated["Ready"] == ("False", "ReadinessGatesNotReady")
    assert gated["ContainersReady"][0] == "True"


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = build(view(one("running")), [], NOW)["conditions"]
    later = NOW + timedelta(minutes=1)
    second = build(view(one("running", ready=True)), first, later)["conditions"]
    times = {c["type"]: c["lastTransitionTime"] for c in second}
    assert times["Initialized"] == "2026-01-02T03:04:05Z"
    assert times["Ready"] == "2026-01-02T03:05:05Z"


def test_restart_policies() -> None:
    assert [runs_again(policy, code) for policy in ("Always", "OnFailure", "Never") for code in (0, 1)] == [
        *(True, True),
        *(False, True),
        *(False, False),
    ]


def test_back_off_is_a_kubelets() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert [backoff.after(601.0), backoff.after(1.0)] == [0, 10]


def test_a_probe_needs_enough_answers_in_a_row() -> None:
    threshold = Threshold(success=1, failure=3, initial=True)
    assert not any(threshold.observe(answer) for answer in (False, False, True, False, False))
    assert threshold.observe(False)
    assert not threshold.observe(False), "said once"
    assert threshold.observe(True)
    assert Threshold(1, 1, None).observe(True), "the first verdict of a startup probe is news"


def test_pods_of_an_earlier_agent() -> None:
    running = {"state": {"running": {"startedAt": "t"}}, "name": "a", "containerID": "id", "ready": True}
    done = {"state": {"terminated": {"exitCode": 0}}, "name": "b"}
    waiting = {"state": {"waiting": {}}, "name": "c"}
    pod = {"status": {"phase": "Running", "containerStatuses": [running, done, waiting]}}
    assert was_running(pod)
    assert not is_over(pod)
    assert not was_running({"status": {"phase": "Pending", "containerStatuses": [waiting]}})
    status = lost_status(pod, NOW)
    assert (status["phase"], status["reason"]) == ("Failed", "NodeLost")
    first, second, third = status["containerStatuses"]
    assert first["state"]["terminated"]["exitCode"] == 137
    assert first["state"]["terminated"]["containerID"] == "id"
    assert not first["ready"]
    assert second == done
    assert third["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert {c["type"]: c["status"] for c in status["conditions"]}["DisruptionTarget"] == "True"
