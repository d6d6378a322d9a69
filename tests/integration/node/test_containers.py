"""What a container sees and how its end is reported."""

import json
import sys
import time
from pathlib import Path

from rectrain_local.nodes import ProcessNode
from tests.support.waiting import wait_until

from .conftest import Obj, Space, pod


def terminated(found: Obj) -> Obj:
    state: Obj = found["status"]["containerStatuses"][0]["state"]["terminated"]
    return state


def test_environment_command_and_arguments(space: Space) -> None:
    def ref(kind: str, **what: str) -> Obj:
        return {"valueFrom": {kind: what}}

    env = [
        {"name": "PLAIN", "value": "x"},
        {"name": "NESTED", "value": "$(PLAIN)-$(FROM_word)-$$(PLAIN)-$(UNKNOWN)"},
        {"name": "NAME"} | ref("fieldRef", fieldPath="metadata.name"),
        {"name": "LABEL"} | ref("fieldRef", fieldPath="metadata.labels['color']"),
        {"name": "NODE"} | ref("fieldRef", fieldPath="spec.nodeName"),
        {"name": "ACCOUNT"} | ref("fieldRef", fieldPath="spec.serviceAccountName"),
        {"name": "CPU"} | ref("resourceFieldRef", resource="requests.cpu", divisor="1m"),
        {"name": "SECRET"} | ref("secretKeyRef", name="login", key="password"),
        {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "no", "optional": True}}},
    ]
    wanted = pod(
        "env",
        "",
        env=env,
        envFrom=[{"prefix": "FROM_", "configMapRef": {"name": "words"}}],
        resources={"requests": {"cpu": "50m"}},
        labels={"color": "green"},
    )
    script = 'echo "$1|$NESTED|$NAME|$LABEL|$NODE|$ACCOUNT|$CPU|$SECRET|${GONE-unset}|$PWD"; env'
    wanted["spec"]["containers"][0] |= {
        "command": ["sh", "-c", script, "sh"],
        "args": ["$(PLAIN)!"],
        "workingDir": "/made/here",
    }
    space.kubectl("create", "configmap", "words", "--from-literal=word=w")
    space.kubectl("create", "secret", "generic", "login", "--from-literal=password=p")
    space.apply(wanted)
    space.wait_phase("env", "Succeeded")
    first, *rest = space.logs("env").splitlines()
    assert first == "x!|x-w-$(PLAIN)-$(UNKNOWN)|env|green|node-1|default|50|p|unset|/made/here"
    names = {line.partition("=")[0] for line in rest}
    assert {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HOSTNAME", "HOME"} <= names
    assert not names & {"USER", "KUBECONFIG", "PYTHONPATH", "LANG"}


def test_the_sandbox_shows_neither_home_nor_state_and_its_root_is_read_only(
    space: Space, process_node: ProcessNode
) -> None:
    hidden = [
        str(path) for path in (Path.home() / ".bashrc", process_node.folder / "pki", process_node.folder)
    ]
    script = f"""
    for path in {" ".join(hidden)} /etc/shadow /etc/ssl/private
    do test -e $path && echo SEEN $path; done
    for path in / /usr /etc /dev /var /run /sys; do touch $path/x 2>/dev/null && echo WRITABLE $path; done
    touch /tmp/x && echo tmp
    grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr '\\n\\t' '  '; echo
    id -u; ls /proc | grep -c '^[0-9]'; hostname; ls /tmp
    """
    space.apply(
        pod("private", script),
        pod("strict", "touch /tmp/x || echo read-only", securityContext={"readOnlyRootFilesystem": True}),
        pod("root", "id -u; grep CapEff /proc/self/status", securityContext={"runAsUser": 0}),
    )
    space.wait_phase("private", "Succeeded")
    said = space.logs("private").splitlines()
    assert said[0] == "tmp", said
    assert sorted(said[1].split()) == ["0" * 16, "0" * 16, "1", "CapBnd:", "CapEff:", "NoNewPrivs:"]
    assert said[2] == "65532"
    assert int(said[3]) <= 4
    # A checkout in /tmp is the image's environment, and all of the host's /tmp that is shown.
    checkout = {p.parts[2] for p in (Path(sys.prefix), Path(__file__)) if p.is_relative_to("/tmp")}
    assert set(said[4:]) == {"private", "x"} | checkout
    space.wait_phase("strict", "Succeeded")
    assert "read-only" in space.logs("strict")
    space.wait_phase("root", "Succeeded")
    assert space.logs("root").split() == ["0", "CapEff:", "0" * 16]


def test_exit_codes_reasons_and_termination_messages(space: Space) -> None:
    long = "printf 'x%.0s' $(seq 5000) > /dev/termination-log; echo end >> /dev/termination-log; exit 75"
    own = {"terminationMessagePath": "/work/message"}
    volume = {
        "volumes": [{"name": "work", "emptyDir": {}}],
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
    }
    space.apply(
        pod("good", "echo result > /work/message", **own, **volume),
        pod("bad", long),
        pod(
            "speaks", "echo first; echo last words; exit 1", terminationMessagePolicy="FallbackToLogsOnError"
        ),
        pod("killed", "sh -c 'kill -9 $$$$'; exit $?"),
    )
    found = space.wait_phase("good", "Succeeded")
    assert (terminated(found)["exitCode"], terminated(found)["reason"]) == (0, "Completed")
    assert terminated(found)["message"] == "result\n"
    found = space.wait_phase("bad", "Failed")
    assert (terminated(found)["exitCode"], terminated(found)["reason"]) == (75, "Error")
    assert terminated(found)["message"] == "x" * 4092 + "end\n"
    assert terminated(space.wait_phase("speaks", "Failed"))["message"] == "first\nlast words\n"
    assert terminated(space.wait_phase("killed", "Failed"))["exitCode"] == 137


def test_what_cant_be_started_says_why(space: Space) -> None:
    nothing = pod("nothing", "")
    del nothing["spec"]["containers"][0]["command"]
    missing = pod("missing", "")
    missing["spec"]["containers"][0]["command"] = ["/no/such/program"]
    not_root = pod("not-root", "true", securityContext={"runAsNonRoot": True, "runAsUser": 0})
    unset = pod("unset", "true", envFrom=[{"secretRef": {"name": "no-such"}}])
    space.apply(nothing, missing, not_root, unset, pod("host", "true", hostPID=True))

    def waiting(name: str) -> Obj:
        statuses = space.get("pod", name).get("status", {}).get("containerStatuses") or [{}]
        found: Obj = statuses[0].get("state", {}).get("waiting") or {}
        return found

    for name, reason, words in (
        ("nothing", "CreateContainerError", "names no command"),
        ("not-root", "CreateContainerConfigError", "breaks non-root policy"),
        ("unset", "CreateContainerConfigError", 'secret "no-such" not found'),
        ("host", "CreateContainerConfigError", "spec.hostPID"),
    ):
        wait_until(lambda n=name, r=reason: waiting(n).get("reason") == r, 10, lambda n=name: space.story(n))
        assert words in waiting(name)["message"]
    state = terminated(space.wait_phase("missing", "Failed"))
    assert (state["exitCode"], state["reason"]) == (128, "StartError")
    assert "/no/such/program" in state["message"]


def test_sigterm_then_grace_then_sigkill(space: Space) -> None:
    polite = "trap 'echo bye; exit 75' TERM; echo up; while :; do sleep 0.1; done"
    deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    space.apply(pod("polite", polite, terminationGracePeriodSeconds=30), pod("deaf", deaf))
    for name in ("polite", "deaf"):
        space.wait_log(name, "up")
    started = time.monotonic()
    space.kubectl("delete", "pod", "polite")
    assert time.monotonic() - started < 15
    started = time.monotonic()
    space.kubectl("delete", "pod", "deaf", "--grace-period=2")
    assert time.monotonic() - started > 1.9


def test_a_deadline_ends_the_pod(space: Space) -> None:
    space.apply(pod("slow", "sleep 100", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))
    found = space.wait_phase("slow", "Failed")
    assert found["status"]["reason"] == "DeadlineExceeded"
    assert terminated(found)["exitCode"] == 137


def test_a_job_counts_its_failed_pods(space: Space) -> None:
    template = pod("unused", "exit 65")["spec"]
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [65]}}
    spec = {"backoffLimit": 3, "podFailurePolicy": {"rules": [rule]}, "template": {"spec": template}}
    space.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec})

    def failed() -> bool:
        conditions = space.get("job", "job")["status"].get("conditions") or []
        return any(c["type"] == "Failed" and c["reason"] == "PodFailurePolicy" for c in conditions)

    wait_until(failed, 20, lambda: json.dumps(space.get("job", "job")["status"]))
    assert len(space.items("pods")) == 1
