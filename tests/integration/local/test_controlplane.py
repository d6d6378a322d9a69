"""The control plane is real, closed to others, and can lose a part and get it back."""

import json
import stat
import subprocess
from pathlib import Path

import pytest

from rectrain_local.controlplane import COMPONENTS, ControlPlane
from tests.support.processes import listening_addresses
from tests.support.waiting import wait_until


def test_every_component_is_healthy_and_kubectl_works(control_plane: ControlPlane) -> None:
    assert control_plane.health() == dict.fromkeys(COMPONENTS, True)
    version = json.loads(control_plane.kubectl("version", "-o", "json").stdout)
    assert version["serverVersion"]["gitVersion"].startswith("v1.37.")


def test_a_job_gets_a_pod_that_waits_for_a_node(control_plane: ControlPlane) -> None:
    """Controller manager and scheduler do their part, before any node exists for it."""
    control_plane.kubectl("create", "namespace", "no-node")
    control_plane.kubectl("create", "job", "idle", "--image=none", "-n", "no-node", "--", "true")

    def waiting() -> bool:
        pods = json.loads(control_plane.kubectl("get", "pods", "-n", "no-node", "-o", "json").stdout)["items"]
        return bool(pods) and bool(pods[0]["spec"].get("serviceAccountName"))

    wait_until(waiting, 30, "the Job's pod")
    control_plane.kubectl("delete", "namespace", "no-node", "--wait=false")


def test_tokens_are_projected_and_reviewed(control_plane: ControlPlane) -> None:
    token = control_plane.kubectl("create", "token", "default", "--audience=here").stdout.strip()
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["here"]},
    }
    answer = control_plane.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)).stdout
    assert json.loads(answer)["status"]["user"]["username"] == "system:serviceaccount:default:default"


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("list", "pods", "yes"),
        ("watch", "services", "yes"),
        ("list", "secrets", "no"),
        ("create", "pods", "no"),
    ],
)
def test_the_reader_may_only_look_at_names(
    control_plane: ControlPlane, verb: str, resource: str, allowed: str
) -> None:
    answer = control_plane.kubectl(
        "--kubeconfig",
        str(control_plane.reader_kubeconfig),
        "auth",
        "can-i",
        verb,
        resource,
        "-A",
        check=False,
    )
    assert answer.stdout.strip() == allowed


def test_a_node_may_register_itself_only(control_plane: ControlPlane, tmp_path: Path) -> None:
    client, _ = control_plane.issue_node_credentials("mine", tmp_path / "pki")

    def register(name: str) -> subprocess.CompletedProcess[str]:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        identity = [
            f"--client-certificate={client.cert}",
            f"--client-key={client.key}",
            f"--certificate-authority={control_plane.ca_file}",
            f"--server={control_plane.server}",
            "--kubeconfig=/dev/null",
        ]
        return control_plane.kubectl(*identity, "create", "-f", "-", stdin=json.dumps(node), check=False)

    assert register("mine").returncode == 0
    assert "forbidden" in register("other").stderr.lower()
    control_plane.kubectl("delete", "node", "mine")


def test_strangers_are_refused(control_plane: ControlPlane) -> None:
    answer = control_plane.kubectl(
        "--kubeconfig=/dev/null",
        f"--server={control_plane.server}",
        f"--certificate-authority={control_plane.ca_file}",
        "--username=nobody",
        "--password=nothing",
        "get",
        "namespaces",
        check=False,
    )
    assert answer.returncode != 0


def test_nothing_it_wrote_is_open_to_others(control_plane: ControlPlane) -> None:
    others = stat.S_IRWXG | stat.S_IRWXO
    keys = [p for p in control_plane.folder.rglob("*") if p.suffix in {".key", ".kubeconfig", ".log"}]
    assert keys
    assert [p for p in [*keys, control_plane.kubeconfig] if p.stat().st_mode & others] == []
    assert not control_plane.folder.stat().st_mode & others


def test_it_listens_on_the_loopback_address_only(control_plane: ControlPlane) -> None:
    pids = {child.pid for child in control_plane.children}
    assert listening_addresses(pids) <= {"0100007F"}


def test_a_killed_api_server_comes_back_with_its_data(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    server = control_plane.server
    control_plane.stop_component("kube-apiserver", kill=True)
    assert not control_plane.health()["kube-apiserver"]
    control_plane.start_component("kube-apiserver")
    assert control_plane.server == server
    control_plane.kubectl("delete", "configmap", "kept")
    wait_until(
        lambda: all(control_plane.health().values()), 30, lambda: f"all well: {control_plane.health()}"
    )
