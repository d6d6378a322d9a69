"""The operator away, the API server away, the certificate gone, an upgrade: training notices none of it."""

import json
from typing import Any

import pytest

from examples import demo
from tests.real.conftest import INSIDE, INSTALLED, NAMESPACE, NEXT, Nodes
from tests.support.rig import Rig
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)
IMAGES = "jsonpath={.items[*].spec.containers[0].image}"
CERTIFICATE = f"{demo.RELEASE}-certificate"
SYSTEM = ("kubectl", "-n", demo.OPERATOR_NAMESPACE)


def pod_of(name: str) -> str:
    return demo.run("kubectl", "get", "pods", "-l", f"rectrain.dev/job={name}", "-o", "name").strip()


def unharmed(status: dict[str, Any]) -> None:
    """Still in its first attempt; these runs are too long to be waited for."""
    assert status["phase"] == "Running"
    assert status["attempt"] == 1
    assert sum(status["restarts"].values()) == 0


def test_nothing_that_happens_to_the_operator_stops_training(rig: Rig, nodes: Nodes) -> None:
    rig.apply("unmoved", **{"training.epochs": 100})
    rig.wait_committed("unmoved")
    pod = pod_of("unmoved")

    def goes_on(after: str) -> None:
        step = rig.status("unmoved")["progress"]["step"]
        rig.wait_status("unmoved", f"a step after {after}", lambda s: s["progress"]["step"] > step, 120)

    demo.run(*SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/name=rectrain-operator")
    goes_on("the operator's pod was deleted")

    demo.run(*SYSTEM, "delete", "secret", CERTIFICATE)
    wait_until(
        lambda: "CertificateUnkept" in demo.run(*SYSTEM, "get", "events"),
        90,
        "an Event about the certificate",
    )
    goes_on("its certificate was deleted")
    demo.install(*INSTALLED, "--set", f"image.tag={NEXT}", namespace=NAMESPACE, endpoint=INSIDE)
    assert demo.run(*SYSTEM, "get", "pods", "-o", IMAGES).split() == [f"rectrain-operator:{NEXT}"]

    def kept() -> bool:
        return bool(json.loads(demo.run(*SYSTEM, "get", "secret", CERTIFICATE, "-o", "json")).get("data"))

    wait_until(kept, 90, "the certificate to be kept again")
    goes_on("an upgrade")
    unharmed(rig.status("unmoved"))
    assert pod_of("unmoved") == pod, "training was restarted"


def test_the_api_server_restarts_in_mid_run(rig: Rig, nodes: Nodes) -> None:
    rig.apply("steady", **{"training.epochs": 100})
    rig.wait_committed("steady")
    pod = pod_of("steady")
    step = rig.status("steady")["progress"]["step"]
    nodes.restart_api_server()
    rig.wait_status("steady", "a later step", lambda s: s["progress"]["step"] > step, 120)
    unharmed(rig.status("steady"))
    assert pod_of("steady") == pod, "training was restarted"


def test_uninstall_leaves_running_trainings(rig: Rig) -> None:
    rig.apply("left", **{"training.epochs": 3})
    rig.wait_committed("left")
    said = demo.run("helm", "status", demo.RELEASE, "-n", demo.OPERATOR_NAMESPACE)
    assert "kubectl delete crd rectrainingjobs.rectrain.dev" in said
    demo.run("helm", "uninstall", demo.RELEASE, "-n", demo.OPERATOR_NAMESPACE, "--wait")
    try:
        rig.wait_job_complete("left")
        assert rig.status("left")["phase"] != "Succeeded", "nobody was there to say so"
    finally:
        demo.install(*INSTALLED, namespace=NAMESPACE, endpoint=INSIDE)
    status = rig.wait_phase("left", "Succeeded", 60)
    assert status["attempt"] == 1
