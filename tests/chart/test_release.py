"""The chart on a real API server: accepted, upgraded and removed without loss."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rectrain_local.controlplane import ControlPlane
from tests.chart.conftest import CHART, Helm
from tests.chart.test_templates import HERE, SETS

NAMESPACE = "chart"
RELEASE = "rectrain-operator"
CRD = "rectrainingjobs.rectrain.dev"


@pytest.fixture
def namespace(control_plane: ControlPlane, helm: Helm) -> Iterator[str]:
    """Pods of this namespace must keep the restricted Pod Security Standard."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    for name in ("training", "research"):
        control_plane.kubectl("create", "namespace", name)
    # Another suite may have installed the CRD by kubectl: helm takes over only what is marked as its own.
    control_plane.kubectl("delete", "crd", CRD, "--ignore-not-found")
    yield NAMESPACE
    helm.tried("uninstall", RELEASE, "-n", NAMESPACE, kubeconfig=control_plane.kubeconfig)
    control_plane.kubectl("delete", "namespace", NAMESPACE, "training", "research")


def secret(control_plane: ControlPlane) -> dict[str, Any]:
    said = control_plane.kubectl("get", "secret", f"{RELEASE}-certificate", "-n", NAMESPACE, "-o", "json")
    return dict(json.loads(said.stdout))


@pytest.mark.parametrize("values", SETS)
def test_the_api_server_accepts_all_of_it(
    helm: Helm, control_plane: ControlPlane, namespace: str, values: str
) -> None:
    text = helm(
        "template", RELEASE, str(CHART), "-n", namespace, "-f", str(HERE / "values" / f"{values}.yaml")
    )
    said = control_plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )
    assert f"deployment.apps/{RELEASE} serverside-applied" in said.stdout


def test_its_pod_keeps_the_restricted_standard(
    helm: Helm, control_plane: ControlPlane, namespace: str
) -> None:
    text = helm("template", RELEASE, str(CHART), "-n", namespace)
    (deployment,) = (one for one in yaml.safe_load_all(text) if one and one["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    template["spec"].pop("serviceAccountName")  # not made by a dry run
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"name": "like-the-operators", "namespace": namespace}
    said = control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    assert "created" in said.stdout


def test_upgrade_keeps_the_certificate_and_uninstall_the_runs(
    helm: Helm, control_plane: ControlPlane, namespace: str
) -> None:
    def run(*argv: str) -> str:
        return helm(*argv, "-n", namespace, kubeconfig=control_plane.kubeconfig)

    notes = run("install", RELEASE, str(CHART))
    assert "rollout status deployment/rectrain-operator" in notes
    assert "kubectl apply -f rectrainingjob.yaml" in notes
    assert "data" not in secret(control_plane)

    key = base64.b64encode(b"a key").decode()
    patch = json.dumps({"data": {"tls.key": key}})
    control_plane.kubectl("patch", "secret", f"{RELEASE}-certificate", "-n", namespace, "-p", patch)
    run("upgrade", RELEASE, str(CHART), "--set", "debug=true")
    assert secret(control_plane)["data"] == {"tls.key": key}

    control_plane.kubectl("delete", "secret", f"{RELEASE}-certificate", "-n", namespace)
    run("upgrade", RELEASE, str(CHART))
    assert "data" not in secret(control_plane)

    run("uninstall", RELEASE)
    control_plane.kubectl("get", "crd", CRD)
    run("install", RELEASE, str(CHART))  # takes over the CRD that it left
