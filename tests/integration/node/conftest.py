"""A namespace of its own for each test, and words for what the tests do in it."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from rectrain_local.controlplane import ControlPlane
from rectrain_local.nodes import ProcessNode
from tests.support.waiting import wait_until

Obj = dict[str, Any]
POD_S = 30.0


class Space:
    """One namespace of the control plane."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self._plane = plane
        self.name = name

    def kubectl(self, *args: str, check: bool = True, stdin: str | None = None) -> str:
        return self.run(*args, check=check, stdin=stdin).stdout

    def run(
        self, *args: str, check: bool = False, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self._plane.kubectl("--namespace", self.name, *args, stdin=stdin, check=check)

    def apply(self, *objects: Obj) -> None:
        self.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def get(self, kind: str, name: str) -> Obj:
        done = self.run("get", kind, name, "-o", "json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def items(self, kind: str, *args: str) -> list[Obj]:
        items: list[Obj] = json.loads(self.kubectl("get", kind, *args, "-o", "json"))["items"]
        return items

    def logs(self, *args: str) -> str:
        return self.kubectl("logs", *args)

    def phase(self, pod: str) -> str:
        return str(self.get("pod", pod).get("status", {}).get("phase", "gone"))

    def wait_phase(self, pod: str, *phases: str, deadline_s: float = POD_S) -> Obj:
        wait_until(lambda: self.phase(pod) in phases, deadline_s, lambda: self.story(pod))
        return self.get("pod", pod)

    def wait_log(self, pod: str, text: str, deadline_s: float = POD_S) -> str:
        wait_until(lambda: text in self.run("logs", pod).stdout, deadline_s, lambda: self.story(pod))
        return self.logs(pod)

    def wait_gone(self, kind: str, name: str) -> None:
        wait_until(lambda: not self.get(kind, name), POD_S, f"{kind} {name} is still there")

    def events(self, reason: str) -> list[Obj]:
        return self.items("events", "--field-selector", f"reason={reason}")

    def story(self, pod: str) -> str:
        """All that helps to understand a pod that isn't where it should be."""
        status = json.dumps(self.get("pod", pod).get("status"), indent=1)
        return f"{pod}: {status}\n{self.run('logs', pod).stdout}\n{self.run('get', 'events').stdout}"


def pod(name: str, script: str, **spec: Any) -> Obj:
    """A pod of one container that runs a shell script once."""
    container_fields = (
        "env",
        "envFrom",
        "volumeMounts",
        "resources",
        "ports",
        "readinessProbe",
        "livenessProbe",
    )
    container_fields += ("securityContext", "workingDir", "lifecycle", "startupProbe")
    container_fields += ("terminationMessagePath", "terminationMessagePolicy")
    container: Obj = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    container |= {key: spec.pop(key) for key in container_fields if key in spec}
    labels = spec.pop("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "containers": [container],
            "automountServiceAccountToken": False,
        }
        | spec,
    }


@pytest.fixture
def space(
    control_plane: ControlPlane, process_node: ProcessNode, request: pytest.FixtureRequest
) -> Iterator[Space]:
    name = "n-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    control_plane.kubectl("create", "namespace", name)
    made = Space(control_plane, name)
    wait_until(lambda: made.get("serviceaccount", "default"), POD_S, "no default service account")
    wait_until(lambda: made.get("configmap", "kube-root-ca.crt"), POD_S, "no root CA ConfigMap")
    yield made
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
