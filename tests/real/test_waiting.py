"""A pod that can't start: `message` says why, within seconds."""

import json
from typing import Any

import pytest

from examples import demo
from tests.support.rig import Rig

UNBOUND = {"data.cache.claimName": "never-bound"}


@pytest.fixture
def never_bound(rig: Rig) -> None:
    """A claim that no volume fits."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "never-bound"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "no-such-class",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    demo.run("kubectl", "apply", "-f", "-", stdin=json.dumps(claim))


@pytest.mark.usefixtures("never_bound")
@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("no-image", {"replicas.image": "example.invalid/nobody/nothing:1"}, "replicas.image"),
        ("no-volume", UNBOUND, "PersistentVolumeClaims"),
        ("no-claim", {"data.cache.claimName": "not-there"}, '"not-there" not found'),
        ("no-gpu", {"replicas.gpusPerNode": 1}, "Insufficient nvidia.com/gpu"),
        ("no-room", {"replicas.resources": {"requests": {"memory": "9Ti"}}}, "Insufficient memory"),
    ],
)
def test_the_message_says_which(rig: Rig, name: str, changes: dict[str, Any], said: str) -> None:
    rig.apply(name, **changes)
    status = rig.wait_status(name, f"{said!r} in the message", lambda s: said in s.get("message", ""), 30)
    assert status["phase"] == "Pending"
