"""Two pods train one model; one that is lost is replaced alone. The body is also that of tests/real."""

import json
from typing import Any

from examples import demo
from tests.support.rig import Rig

INDEX = "batch.kubernetes.io/job-completion-index"
EPOCHS, STEPS = 6, 8
"""473 images in steps of 2 x 32 are 8 an epoch."""


def alive(name: str) -> dict[str, Any]:
    """Pods of a run that haven't ended, by index."""
    selector = f"rectrain.dev/job={name}"
    pods = json.loads(demo.run("kubectl", "get", "pods", "-l", selector, "-o", "json"))["items"]
    return {p["metadata"]["labels"][INDEX]: p for p in pods if p["status"]["phase"] in ("Pending", "Running")}


def lose_each_pod_once(rig: Rig, name: str) -> dict[str, Any]:
    """Delete pod 1, then pod 0, of a run of two under way; its last status."""
    rig.wait_committed(name)
    for attempt, lost in enumerate("10", start=1):
        stays = "1" if lost == "0" else "0"
        before = alive(name)
        demo.run("kubectl", "delete", "pod", before[lost]["metadata"]["name"])
        said = f"1 of 2 pods runs; pod {lost}: "
        status = rig.wait_status(name, said, lambda s, said=said: s["message"].startswith(said), 60)
        assert status["phase"] == "Restarting"
        rig.wait_status(name, "the next attempt", lambda s, n=attempt + 1: s.get("attempt") == n, 120)
        rig.wait_committed(name, step=status["checkpoint"]["latest"]["step"] + 1)
        assert alive(name)[stays]["metadata"]["uid"] == before[stays]["metadata"]["uid"], "replaced too"
        records = rig.records(name)
        saved = max(r["step"] for r in records if r["kind"] == "checkpoint" and r["attempt"] == attempt)
        assert rig.first_step(name, attempt + 1) == saved + 1
    status = rig.wait_phase(name, "Succeeded", 300)
    assert status["progress"]["steps"] == EPOCHS * STEPS
    assert status["restarts"] == {"failure": 0, "oom": 0, "disruption": 2, "suspend": 0}
    assert status["devices"]["count"] == 2
    return status


def test_a_lost_pod_is_replaced_alone_and_both_go_on_from_the_checkpoint(rig: Rig) -> None:
    rig.apply("pair", **{"replicas.nodes": 2, "training.epochs": EPOCHS, "checkpoint.interval": 4})
    lose_each_pod_once(rig, "pair")
