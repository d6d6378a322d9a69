"""Three manifests as anybody would write them: a Deployment, an Indexed Job, all volume kinds."""

import json
from pathlib import Path

from rectrain_local.nodes import ProcessNode
from tests.support.waiting import wait_until

from .conftest import Obj, Space, pod

WEB = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from " + os.environ["HOSTNAME"].encode())
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
ASK = "import urllib.request as u; print(u.urlopen('http://{}:8080', timeout=5).read().decode())"


def deployment(labels: dict[str, str]) -> Obj:
    get = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    container = {
        "name": "web",
        "image": "python:3.11",
        "command": ["python3", "-c", WEB],
        "env": [POD_IP],
        "ports": [{"name": "http", "containerPort": 8080}],
        "startupProbe": get | {"failureThreshold": 30},
        "readinessProbe": {"exec": {"command": ["sh", "-c", 'test -n "$POD_IP"']}, "periodSeconds": 1},
        "livenessProbe": {"tcpSocket": {"port": 8080}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def test_a_deployment_is_reached_by_its_services_name(space: Space) -> None:
    labels = {"app": "web"}
    ports = [{"port": 8080, "targetPort": "http"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": ports},
    }
    space.apply(deployment(labels), service)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=40s")
    names = ["web", f"web.{space.name}", f"web.{space.name}.svc", f"web.{space.name}.svc.cluster.local"]
    asks = "\n".join(f'python3 -c "{ASK.format(name)}"' for name in names)
    space.apply(pod("client", f"until getent hosts web; do sleep 0.2; done; set -e; {asks}"))
    space.wait_phase("client", "Succeeded")
    assert space.logs("client").count("hello from web-") == len(names)
    # A pod that goes is replaced, and no event speaks of unhealthy pods.
    victim = space.items("pods", "-l", "app=web")[0]["metadata"]["name"]
    space.kubectl("delete", "pod", victim)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=40s")
    assert victim not in space.kubectl("get", "pods")


MEET = """
import os, socket, time
me, count = int(os.environ["JOB_COMPLETION_INDEX"]), 3
server = socket.create_server((os.environ["POD_IP"], 7000))
met = set()
def names(i): return f"meet-{i}.peers"
deadline = time.monotonic() + 30
for i in range(count):
    while True:
        try:
            socket.create_connection((names(i), 7000), 1).close(); met.add(i); break
        except OSError:
            assert time.monotonic() < deadline, names(i)
            time.sleep(0.1)
everybody = {a[4][0] for a in socket.getaddrinfo("peers", 7000, type=socket.SOCK_STREAM)}
print("met", sorted(met), "known", len(everybody))
time.sleep(1)
"""


def test_pods_of_an_indexed_job_meet_by_its_headless_service(space: Space) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "peers"},
        "spec": {"clusterIP": "None", "selector": {"job-name": "meet"}, "publishNotReadyAddresses": True},
    }
    template = pod("unused", "")["spec"] | {"subdomain": "peers"}
    template["containers"] = [
        {"name": "main", "image": "python", "command": ["python3", "-c", MEET], "env": [POD_IP]}
    ]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "meet"},
        "spec": {
            "completionMode": "Indexed",
            "completions": 3,
            "parallelism": 3,
            "podReplacementPolicy": "Failed",
            "backoffLimit": 0,
            "template": {"spec": template},
        },
    }
    space.apply(service, job)
    wait_until(
        lambda: space.get("job", "meet").get("status", {}).get("succeeded") == 3,
        60,
        lambda: space.kubectl("get", "pods,events", "-o", "wide"),
    )
    for one in space.items("pods"):
        assert "met [0, 1, 2] known 3" in space.logs(one["metadata"]["name"])


LOOK = """
set -e
cd /v
cat config/one renamed/sub/two bin/raw; echo
stat -Lc '%a' renamed/sub/two secret/password
cat secret/password; echo
cat down/labels down/annotation down/memory; echo
cat all/name all/one all/password; echo
test -s all/token && cat all/ca.crt | head -1
test ! -e missing/x
cat single
echo disk > disk/file; echo shm > /dev/shm/file; cat disk/file /dev/shm/file
df /dev/shm | tail -1 | awk '{print "shm", $2}'
cat host/hello; echo written > host/back
echo claimed > claim/file
test -f part/made && echo sub path
touch config/x 2>/dev/null && echo WRITABLE CONFIG
touch ro/x 2>/dev/null && echo WRITABLE RO
echo end
"""


def volumes(host: Path) -> list[Obj]:
    down = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotation", "fieldRef": {"fieldPath": "metadata.annotations['note']"}},
        {
            "path": "memory",
            "resourceFieldRef": {
                "containerName": "main",
                "resource": "requests.memory",
                "divisor": "1Mi",
            },
        },
    ]
    token = {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}}
    projected = [
        token,
        {"configMap": {"name": "settings", "items": [{"key": "one", "path": "one"}]}},
        {"secret": {"name": "login"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"configMap": {"name": "kube-root-ca.crt"}},
    ]
    renamed = {"name": "settings", "items": [{"key": "two", "path": "sub/two", "mode": 0o440}]}
    return [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "renamed", "configMap": renamed},
        {"name": "bin", "configMap": {"name": "raw"}},
        {"name": "secret", "secret": {"secretName": "login", "defaultMode": 0o400}},
        {"name": "down", "downwardAPI": {"items": down}},
        {"name": "all", "projected": {"sources": projected}},
        {"name": "missing", "configMap": {"name": "nowhere", "optional": True}},
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
    ]


def objects(name: str, claimed: Path) -> list[Obj]:
    core = {"apiVersion": "v1"}
    storage = {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    return [
        core | {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"one": "1\n", "two": "2\n"}},
        core | {"kind": "ConfigMap", "metadata": {"name": "raw"}, "binaryData": {"raw": "cmF3"}},
        core | {"kind": "Secret", "metadata": {"name": "login"}, "stringData": {"password": "pass"}},
        core
        | {
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": common
            | {
                "capacity": storage,
                "hostPath": {"path": str(claimed)},
                "claimRef": {"name": "claim", "namespace": name},
            },
        },
        core
        | {
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "claim"},
            "spec": common | {"resources": {"requests": storage}, "volumeName": name},
        },
    ]


def test_a_pod_with_every_volume_kind(space: Space, tmp_path: Path) -> None:
    host, claimed = tmp_path / "host", tmp_path / "claimed"
    host.mkdir()
    claimed.mkdir()
    (host / "hello").write_text("from the host\n")
    (claimed / "sub").mkdir()
    (claimed / "sub" / "made").touch()
    all_volumes = volumes(host)
    mounts: list[Obj] = [
        {"name": one["name"], "mountPath": f"/v/{one['name']}"}
        for one in all_volumes
        if one["name"] != "memory"
    ]
    mounts += [
        {"name": "memory", "mountPath": "/dev/shm"},
        {"name": "config", "mountPath": "/v/single", "subPath": "one"},
        {"name": "claim", "mountPath": "/v/part", "subPath": "sub"},
        {"name": "disk", "mountPath": "/v/ro", "readOnly": True},
    ]
    wanted = pod(
        "volumes",
        LOOK,
        volumes=all_volumes,
        volumeMounts=mounts,
        resources={"requests": {"memory": "64Mi"}},
        labels={"color": "green"},
    )
    wanted["metadata"]["annotations"] = {"note": "noted"}
    try:
        space.apply(*objects(space.name, claimed), wanted)
        space.wait_phase("volumes", "Succeeded", "Failed")
        said = space.logs("volumes")
    finally:
        space.kubectl("delete", "pv", space.name, "--wait=false", "--ignore-not-found")
    assert said.splitlines() == [
        *("1", "2", "raw", "440", "400", "pass", 'color="green"noted64', "volumes1"),
        *("pass", "-----BEGIN CERTIFICATE-----", "1", "disk", "shm", "shm 16384"),
        *("from the host", "sub path", "end"),
    ]
    assert (host / "back").read_text() == "written\n"
    assert (claimed / "file").read_text() == "claimed\n"


def test_a_changed_config_map_appears_in_the_running_pod(space: Space) -> None:
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"word": "old\n"},
    }
    mounts = [{"name": "settings", "mountPath": "/etc/settings"}]
    script = "cat /etc/settings/word; until grep new /etc/settings/word; do sleep 0.2; done"
    volume = [{"name": "settings", "configMap": {"name": "settings"}}]
    space.apply(settings, pod("reader", script, volumes=volume, volumeMounts=mounts))
    space.wait_log("reader", "old")
    space.kubectl(
        "patch", "configmap", "settings", "--patch", json.dumps({"data": {"word": "new\n", "more": "x"}})
    )
    space.wait_phase("reader", "Succeeded", deadline_s=15)


def test_a_missing_config_map_is_waited_for(space: Space, process_node: ProcessNode) -> None:
    volume = [{"name": "late", "configMap": {"name": "late"}}]
    mounts = [{"name": "late", "mountPath": "/late"}]
    space.apply(pod("early", "cat /late/word", volumes=volume, volumeMounts=mounts))

    # The node authorizer hears of the binding a moment after the node: the first refusal may be a 403.
    def missing() -> list[Obj]:
        return [e for e in space.events("FailedMount") if 'configmap "late" not found' in e["message"]]

    wait_until(missing, 10, lambda: space.story("early"))
    assert missing()[0]["source"]["host"] == process_node.name
    space.kubectl("create", "configmap", "late", "--from-literal=word=here")
    space.wait_phase("early", "Succeeded")
    assert space.logs("early") == "here"
