"""Two pods on two nodes train one model; one that is lost is replaced alone."""

import json
from typing import Any

import pytest

from examples import demo
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(600)
NAME = "pair"
PODS = ("kubectl", "get", "pods", "-l", f"rectrain.dev/job={NAME}", "-o", "json")
INDEX = "batch.kubernetes.io/job-completion-index"
APART = {"requests": {"cpu": "1100m"}}
"""More than half of a node of two cores: one pod a node."""


def alive() -> dict[str, Any]:
    """Pods that haven't ended, by index."""
    pods = json.loads(demo.run(*PODS))["items"]
    return {p["metadata"]["labels"][INDEX]: p for p in pods if p["status"]["phase"] in ("Pending", "Running")}


def test_a_lost_pod_is_replaced_alone_and_both_go_on_from_the_checkpoint(rig: Rig, nodes: object) -> None:
    settings = {"training.epochs": 12, "checkpoint.interval": 4, "replicas.resources": APART}
    rig.apply(NAME, **{"replicas.nodes": 2}, **settings)
    rig.wait_committed(NAME)
    assert len({p["spec"]["nodeName"] for p in alive().values()}) == 2
    for attempt, lost in enumerate("10", start=1):
        stays = "1" if lost == "0" else "0"
        before = alive()
        demo.run("kubectl", "delete", "pod", before[lost]["metadata"]["name"])
        message = f"1 of 2 pods runs; pod {lost}: "
        status = rig.wait_status(NAME, message, lambda s, m=message: s["message"].startswith(m), 60)  # type: ignore[misc]
        assert status["phase"] == "Restarting"
        rig.wait_status(NAME, "the next attempt", lambda s, n=attempt: s.get("attempt") == n + 1, 120)  # type: ignore[misc]
        rig.wait_committed(NAME, step=status["checkpoint"]["latest"]["step"] + 4)
        assert alive()[stays]["metadata"]["uid"] == before[stays]["metadata"]["uid"], "it was replaced too"
        records = rig.records(NAME)
        saved = max(r["step"] for r in records if r["kind"] == "checkpoint" and r["attempt"] == attempt)
        assert rig.first_step(NAME, attempt + 1) == saved + 1
    status = rig.wait_phase(NAME, "Succeeded", 300)
    assert status["progress"]["steps"] == 12 * 8, "473 images in steps of 2 x 32 are 8 an epoch"
    assert status["restarts"] == {"failure": 0, "oom": 0, "disruption": 2, "suspend": 0}
    assert status["devices"]["count"] == 2
