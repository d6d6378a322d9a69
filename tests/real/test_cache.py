"""`data.cache.claimName`: the second of two runs on one claim starts without a download."""

import json
import re
from collections.abc import Iterator

import pytest

from examples import demo
from tests.real.conftest import STAYS
from tests.support.rig import Rig

FOLDER = "/var/tmp/rectrain-test-cache"
LABEL, VALUE = STAYS.split("=")


@pytest.fixture
def claim(rig: Rig) -> Iterator[str]:
    """A claim whose volume is a folder of the node that stays, open to all users."""
    script = f"rm -rf {FOLDER} && mkdir -m 777 {FOLDER}"
    maker = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "folder", "namespace": "storage"},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {LABEL: VALUE},
            "volumes": [{"name": "tmp", "hostPath": {"path": "/var/tmp"}}],
            "containers": [
                {
                    "name": "folder",
                    "image": "rectrain-test-seaweedfs:1",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/var/tmp"}],
                }
            ],
        },
    }
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "cache"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "storageClassName": "rectrain-cache",
            "hostPath": {"path": FOLDER},
        },
    }
    wanted = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "shared-data"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "rectrain-cache",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    demo.run("kubectl", "apply", "-f", "-", stdin=json.dumps(maker))
    done = "--for=jsonpath={.status.phase}=Succeeded"
    demo.run("kubectl", "-n", "storage", "wait", done, "pod/folder", "--timeout=60s")
    for one in (volume, wanted):
        demo.run("kubectl", "apply", "-f", "-", stdin=json.dumps(one))
    yield "shared-data"
    demo.run("kubectl", "-n", "storage", "delete", "pod", "folder")


def test_the_second_run_downloads_nothing(rig: Rig, claim: str) -> None:
    settings = {"data.cache.claimName": claim, "replicas.nodeSelector": {LABEL: VALUE}}
    rig.apply("first", **settings)
    rig.wait_phase("first", "Succeeded", 240)
    rig.apply("second", **settings)
    rig.wait_phase("second", "Succeeded", 240)
    first, second = (demo.run("kubectl", "logs", f"job/{name}") for name in ("first", "second"))
    assert "were here already" not in first
    assert re.search(r"Staged 0\D.* were here already", second), second
