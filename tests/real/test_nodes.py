"""Nodes that are drained, lose power, or lose the network while they train."""

from typing import Any

import pytest

from examples import demo
from tests.real.conftest import WORKERS, Nodes
from tests.support.rig import Rig
from tests.support.waiting import wait_until

LONG = {"training.epochs": 6, "checkpoint.interval": 5}
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
pytestmark = pytest.mark.timeout(600)


def on_node(rig: Rig, name: str, node: str, **changes: Any) -> None:
    """Have the run train on that node, with a checkpoint committed; then all nodes take pods again."""
    rig.apply(name, **LONG, **changes)
    rig.wait_committed(name)
    assert rig.status(name)["node"] == node
    demo.run("kubectl", "uncordon", "-l", WORKERS)


def test_drain_saves_and_goes_on_elsewhere(rig: Rig, spare: str) -> None:
    on_node(rig, "drained", spare)
    demo.run("kubectl", "drain", spare, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
    status = rig.wait_phase("drained", "Succeeded", 300)
    assert status["node"] != spare
    assert status["restarts"] == {"failure": 0, "oom": 0, "disruption": 1, "suspend": 0}
    assert status["attempt"] == 2
    records = rig.records("drained")
    saved = max(r["step"] for r in records if r["kind"] == "checkpoint" and r["attempt"] == 1)
    (end,) = (r for r in records if r["kind"] == "attempt-end" and r["attempt"] == 1)
    assert end["reason"] == "Interrupted"
    assert end["step"] - saved <= 1, "steps lost"
    assert rig.first_step("drained", 2) == saved + 1


def impatient() -> dict[str, Any]:
    """Gives up on a silent node soon; by default Kubernetes waits five minutes, and then the grace period."""
    taints = ("not-ready", "unreachable")
    return {
        "runPolicy.terminationGraceSeconds": 10,
        "replicas.tolerations": [
            {
                "key": f"node.kubernetes.io/{taint}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 5,
            }
            for taint in taints
        ],
    }


def test_power_cut_says_what_to_do_and_resumes_when_the_node_is_deleted(
    rig: Rig, spare: str, nodes: Nodes
) -> None:
    number = str(nodes.names.index(spare) + 1)
    on_node(rig, "dark", spare, **impatient())
    nodes.machine("node-stop", number)
    try:
        rig.wait_status("dark", "the silence said", lambda s: "hasn't been heard" in s["message"], 90)
        status = rig.wait_status("dark", "the way out", lambda s: "doesn't confirm" in s["message"], 120)
        assert f"kubectl delete node {spare}" in status["message"]
        assert status["phase"] == "Restarting"
        demo.run("kubectl", "delete", "node", spare)
        status = rig.wait_status("dark", "attempt 2", lambda s: s.get("attempt") == 2, 120)
        assert status["node"] == nodes.names[0]
    finally:
        nodes.machine("node-start", number)
        demo.run("kubectl", "wait", "--for=condition=Ready", f"node/{spare}", "--timeout=90s")
    status = rig.wait_phase("dark", "Succeeded", 300)
    assert status["restarts"]["failure"] == 0
    assert status["restarts"]["disruption"] == 1


def test_a_trainer_that_was_cut_off_writes_nothing_once_it_is_replaced(
    rig: Rig, spare: str, nodes: Nodes
) -> None:
    """The node lives, and trains on; its network comes back when another attempt has begun."""
    on_node(rig, "cut", spare, **impatient())
    old = set(rig.trainer_pids("cut"))
    nodes.machine("enter", spare, "sh", "-c", "ip route save > /run/routes && ip link set eth0 down")
    try:
        status = rig.wait_status("cut", "the way out", lambda s: "doesn't confirm" in s["message"], 180)
        assert OUT_OF_SERVICE in status["message"]
        demo.run("kubectl", "taint", "node", spare, OUT_OF_SERVICE)
        rig.wait_status("cut", "attempt 2", lambda s: s.get("attempt") == 2, 120)
        assert old <= set(rig.trainer_pids("cut")), "the old trainer didn't outlive its replacement"
    finally:
        nodes.machine("enter", spare, "sh", "-c", "ip link set eth0 up && ip route restore < /run/routes")
    wait_until(lambda: not old & set(rig.trainer_pids("cut")), 120, "the old trainer to end")
    demo.run("kubectl", "taint", "node", spare, f"{OUT_OF_SERVICE}-")
    rig.wait_phase("cut", "Succeeded", 300)
    records = rig.records("cut")
    taken = next(i for i, r in enumerate(records) if r["kind"] == "attempt-start" and r["attempt"] == 2)
    assert [r for r in records[taken:] if r["attempt"] != 2] == []
    demo.run("kubectl", "wait", "--for=condition=Ready", f"node/{spare}", "--timeout=90s")
