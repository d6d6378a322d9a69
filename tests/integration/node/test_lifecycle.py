"""Restarts, init containers, probes and hooks: a pod over time."""

import socket
from typing import Any

from tests.support.waiting import wait_until

from .conftest import Obj, Space, pod

SHARED = {"volumes": [{"name": "shared", "emptyDir": {}}]}
MOUNT = [{"name": "shared", "mountPath": "/shared"}]


def status(space: Space, name: str, index: int = 0, kind: str = "containerStatuses") -> Obj:
    statuses = space.get("pod", name).get("status", {}).get(kind) or []
    found: Obj = statuses[index] if len(statuses) > index else {}
    return found


def container(name: str, script: str, **more: Any) -> Obj:
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script], "volumeMounts": MOUNT} | more


def test_on_failure_runs_again_until_it_succeeds(space: Space) -> None:
    script = "echo run; test -e /shared/tried && exit 0; touch /shared/tried; exit 3"
    space.apply(pod("retried", script, restartPolicy="OnFailure", volumeMounts=MOUNT, **SHARED))
    found = space.wait_phase("retried", "Succeeded")
    one = found["status"]["containerStatuses"][0]
    assert one["restartCount"] == 1
    assert one["lastState"]["terminated"]["exitCode"] == 3
    assert space.logs("retried") == "run\n"
    assert space.logs("retried", "--previous") == "run\n"


def test_a_crash_loop_backs_off(space: Space) -> None:
    space.apply(pod("crash", "exit 1", restartPolicy="Always"))
    wait_until(
        lambda: (
            status(space, "crash").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        ),
        15,
        lambda: space.story("crash"),
    )
    found = status(space, "crash")
    assert found["restartCount"] == 2
    assert "back-off 10s restarting" in found["state"]["waiting"]["message"]
    assert space.phase("crash") == "Running"


def test_init_containers_and_a_sidecar(space: Space) -> None:
    wanted = pod("staged", "cat /shared/*; sleep 0.5", volumeMounts=MOUNT, **SHARED)
    wanted["spec"]["initContainers"] = [
        container("first", "echo one > /shared/1"),
        container("side", "trap 'exit 0' TERM; echo side > /shared/2; while :; do sleep 0.1; done")
        | {"restartPolicy": "Always", "startupProbe": {"exec": {"command": ["test", "-e", "/shared/2"]}}},
        container("second", "test -e /shared/1 && test -e /shared/2 && echo three > /shared/3"),
    ]
    failing = pod("unstaged", "true")
    failing["spec"]["initContainers"] = [{"name": "init", "image": "busybox", "command": ["false"]}]
    space.apply(wanted, failing)
    found = space.wait_phase("staged", "Succeeded")
    assert space.logs("staged").split() == ["one", "side", "three"]
    ended = {
        s["name"]: s["state"]["terminated"]["exitCode"] for s in found["status"]["initContainerStatuses"]
    }
    assert ended == {"first": 0, "side": 0, "second": 0}
    found = space.wait_phase("unstaged", "Failed")
    assert found["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


def test_probes_restart_and_withhold(space: Space) -> None:
    every_second = {"periodSeconds": 1, "failureThreshold": 1}
    sick = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}} | every_second
    closed = {"tcpSocket": {"port": 9999}} | every_second
    space.apply(
        pod(
            "sick",
            "touch /tmp/sick; trap 'exit 0' TERM; while :; do sleep 0.1; done",
            restartPolicy="Always",
            livenessProbe=sick | {"initialDelaySeconds": 1},
        ),
        pod("closed", "sleep 60", readinessProbe=closed),
    )
    wait_until(lambda: status(space, "sick").get("restartCount"), 20, lambda: space.story("sick"))
    assert any("Liveness probe failed" in one["message"] for one in space.events("Unhealthy"))
    assert not status(space, "closed")["ready"]
    ready = {c["type"]: c["status"] for c in space.get("pod", "closed")["status"]["conditions"]}
    assert ready["Ready"] == ready["ContainersReady"] == "False"
    assert ready["Initialized"] == "True"


def test_a_taken_port_is_said(space: Space) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        space.apply(pod("squeezed", "sleep 60", ports=[{"containerPort": port}, {"containerPort": 80}]))
        wait_until(lambda: len(space.events("PortUnavailable")) == 2, 15, lambda: space.story("squeezed"))
    said = " ".join(one["message"] for one in space.events("PortUnavailable"))
    assert f"port {port} is already in use" in said
    assert "port 80 is below 1024" in said


def test_hooks_run_in_the_sandbox(space: Space, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("hooks")
    volume = [{"name": "host", "hostPath": {"path": str(folder)}}]
    mounts = [{"name": "host", "mountPath": "/host"}]
    started = ["sh", "-c", "id -u > /host/started; hostname >> /host/started"]
    lifecycle = {
        "postStart": {"exec": {"command": started}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /host/stopped"]}},
    }
    script = "while :; do sleep 0.1; done"
    space.apply(pod("hooked", script, lifecycle=lifecycle, volumes=volume, volumeMounts=mounts))
    wait_until((folder / "started").exists, 20, lambda: space.story("hooked"))
    wait_until(lambda: (folder / "started").read_text() == "65532\nhooked\n", 5, "the hook is somewhere else")
    space.kubectl("delete", "pod", "hooked", "--grace-period=1")
    assert (folder / "stopped").read_text() == "stopping\n"
