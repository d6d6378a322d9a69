"""The node itself: its object, its death and return, images it doesn't know. On a second node of our own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rectrain_local.assets.bubblewrap import find_bubblewrap
from rectrain_local.assets.cache import Cache
from rectrain_local.controlplane import ControlPlane
from rectrain_local.nodes import NodeSpec, ProcessNode
from rectrain_local.progress import Progress
from tests.support.waiting import wait_until

from .conftest import Space, pod


@pytest.fixture(scope="module")
def other_node(local_state: Path, control_plane: ControlPlane, cache: Cache) -> Iterator[ProcessNode]:
    spec = NodeSpec("node-2", {"busybox*": Path(sys.prefix)}, gpus=4, labels={"pool": "other"})
    node = ProcessNode(local_state / "node-2", spec, control_plane, find_bubblewrap(cache, Progress()))
    node.start()
    yield node
    node.stop()
    control_plane.kubectl("delete", "node", "node-2")


def test_the_node_object(space: Space, other_node: ProcessNode) -> None:
    node = space.get("node", other_node.name)
    assert node["metadata"]["labels"].items() >= {"pool": "other", "kubernetes.io/hostname": "node-2"}.items()
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    assert {"cpu", "memory", "pods", "ephemeral-storage"} <= node["status"]["capacity"].keys()
    ready = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert ready["Ready"] == "True"
    lease = space.run("get", "lease", "node-2", "-n", "kube-node-lease", "-o", "name")
    assert lease.stdout.strip() == "lease.coordination.k8s.io/node-2"


def test_an_unknown_image_names_the_known_ones(space: Space, other_node: ProcessNode) -> None:
    wanted = pod("strange", "true", nodeName=other_node.name)
    wanted["spec"]["containers"][0]["image"] = "ghcr.io/some/thing:1"
    space.apply(wanted)

    def waiting() -> str:
        statuses = space.get("pod", "strange").get("status", {}).get("containerStatuses") or [{}]
        found = statuses[0].get("state", {}).get("waiting") or {}
        return f"{found.get('reason')}: {found.get('message')}"

    wait_until(lambda: waiting().startswith("ErrImagePull"), 10, waiting)
    assert "Known image names: busybox*" in waiting()
    wait_until(lambda: waiting().startswith("ImagePullBackOff"), 15, waiting)


def test_a_node_that_died_reports_its_pods_failed(space: Space, other_node: ProcessNode) -> None:
    marker = other_node.folder / "beat"
    marker.mkdir(exist_ok=True)
    volume = [{"name": "beat", "hostPath": {"path": str(marker)}}]
    beat = "echo begun; while :; do date +%N > /beat/now; sleep 0.05; done"
    mounts = [{"name": "beat", "mountPath": "/beat"}]
    where = {"nodeName": other_node.name, "volumes": volume, "volumeMounts": mounts}
    space.apply(pod("lost", beat, **where), pod("done", "echo finished", nodeName=other_node.name))
    space.wait_log("lost", "begun")
    space.wait_phase("lost", "Running")
    space.wait_phase("done", "Succeeded")
    other_node.stop(kill=True)
    last = (marker / "now").read_text()
    other_node.start()
    found = space.wait_phase("lost", "Failed")
    assert (marker / "now").read_text() == last, "its processes died with the agent"
    assert found["status"]["reason"] == "NodeLost"
    assert "power cut" in found["status"]["message"]
    assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    conditions = {c["type"]: c["status"] for c in found["status"]["conditions"]}
    assert conditions["DisruptionTarget"] == "True"
    assert conditions["Ready"] == "False"
    assert space.phase("done") == "Succeeded"
    assert space.logs("done") == "finished\n"
    assert space.logs("lost") == "begun\n"
    # And the node works again.
    space.apply(pod("after", "echo again", nodeName=other_node.name))
    space.wait_phase("after", "Succeeded")
    for name in ("lost", "done", "after"):
        space.kubectl("delete", "pod", name, "--wait=false")
    for name in ("lost", "done", "after"):
        space.wait_gone("pod", name)
    wait_until(lambda: not list((other_node.folder / "state" / "pods").glob("*")), 5, "pod folders are left")
    wait_until(lambda: not list((other_node.folder / "state" / "logs").glob("*")), 5, "logs are left")


def test_a_deletion_while_the_node_is_away_is_finished_by_its_return(
    space: Space, other_node: ProcessNode
) -> None:
    space.apply(pod("leaving", "sleep 600", nodeName=other_node.name))
    space.wait_phase("leaving", "Running")
    other_node.stop(kill=True)
    space.kubectl("delete", "pod", "leaving", "--wait=false")
    assert space.get("pod", "leaving")
    other_node.start()
    space.wait_gone("pod", "leaving")


def test_an_error_of_the_agent_fails_one_pod_alone(space: Space, other_node: ProcessNode) -> None:
    space.apply(pod("bystander", "sleep 600", nodeName=other_node.name))
    space.wait_phase("bystander", "Running")
    pods = other_node.folder / "state" / "pods"
    pods.rename(pods.with_name("aside"))
    try:
        pods.touch()
        space.apply(pod("unlucky", "true", nodeName=other_node.name))
        found = space.wait_phase("unlucky", "Failed")
    finally:
        pods.unlink()
        pods.with_name("aside").rename(pods)
    assert found["status"]["reason"] == "NodeError"
    assert "NotADirectoryError" in found["status"]["message"]
    assert space.phase("bystander") == "Running"


def test_a_service_whose_port_is_translated_gets_an_event(space: Space, other_node: ProcessNode) -> None:
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    space.apply(service | {"spec": {"selector": {"app": "web"}, "ports": ports}})
    wait_until(lambda: space.events("PortNotForwarded"), 10, "no event")
    event = space.events("PortNotForwarded")[0]
    assert event["involvedObject"]["name"] == "web"
    assert "use port 8080" in event["message"]
