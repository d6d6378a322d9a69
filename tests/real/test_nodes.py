"""Nodes that are drained, lose power, or lose the network while they train."""

import pytest

from examples import demo
from tests.real.conftest import Nodes
from tests.support.rig import Rig

LONG = {"training.epochs": 25, "checkpoint.interval": 5}
pytestmark = pytest.mark.timeout(600)


def on_node(rig: Rig, name: str, node: str) -> None:
    """Have the run train on that node, with a checkpoint committed; then all nodes take pods again."""
    rig.apply(name, **LONG)
    rig.wait_committed(name)
    assert rig.status(name)["node"] == node
    demo.run("kubectl", "uncordon", "--all")


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


def test_power_cut_says_what_to_do_and_resumes_when_the_node_is_deleted(
    rig: Rig, spare: str, nodes: Nodes
) -> None:
    number = str(nodes.names.index(spare) + 1)
    tolerations = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 5,
        }
        for taint in ("not-ready", "unreachable")
    ]
    rig.apply("dark", **LONG, **{"replicas.tolerations": tolerations})
    rig.wait_committed("dark")
    assert rig.status("dark")["node"] == spare
    demo.run("kubectl", "uncordon", nodes.names[0])
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
