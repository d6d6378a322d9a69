"""`kubectl logs` with its options, and who may ask a node."""

import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from rectrain_local.assets.resolve import Binaries
from rectrain_local.controlplane import ControlPlane
from rectrain_local.nodes import ProcessNode

from .conftest import Space, pod


def test_options_of_logs(space: Space) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; echo err >&2; sleep 2; echo late; printf unfinished"
    space.apply(pod("talker", script))
    space.wait_phase("talker", "Succeeded")
    everything = space.logs("talker")
    assert everything == "line 1\nline 2\nline 3\nline 4\nline 5\nerr\nlate\nunfinished"
    assert space.logs("talker", "--tail=3") == "err\nlate\nunfinished"
    assert space.logs("talker", "--tail=0") == ""
    assert space.logs("talker", "--limit-bytes=9") == "line 1\nli"
    first, *_ = space.logs("talker", "--timestamps").splitlines()
    stamp, text = first.split(" ", 1)
    assert text == "line 1"
    start = datetime.fromisoformat(stamp)
    assert abs(datetime.now(UTC) - start) < timedelta(minutes=1)
    since = (start + timedelta(seconds=1)).isoformat(timespec="seconds").replace("+00:00", "Z")
    assert space.logs("talker", f"--since-time={since}") == "late\nunfinished"
    assert space.logs("talker", "--since=1h") == everything
    refused = space.run("logs", "talker", "--previous")
    assert refused.returncode != 0
    assert 'previous terminated container "main" in pod "talker" not found' in refused.stderr


def test_following_a_log(space: Space, control_plane: ControlPlane, binaries: Binaries) -> None:
    space.apply(pod("counter", "for i in 1 2 3 4 5 6; do echo tick $i; sleep 0.3; done"))
    space.wait_log("counter", "tick 1")
    follower = subprocess.Popen(
        [
            *(str(binaries.kubectl), "--kubeconfig", str(control_plane.kubeconfig)),
            *("--namespace", space.name, "logs", "--follow", "counter"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    timer = threading.Timer(20, follower.kill)
    timer.start()
    seen = [(line.strip(), time.monotonic()) for line in follower.stdout]
    timer.cancel()
    assert follower.wait() == 0
    assert [line for line, _ in seen] == [f"tick {i}" for i in range(1, 7)]
    assert seen[-1][1] - seen[0][1] > 0.3, "lines come as they are written"


def test_exec_and_port_forward_are_refused_with_a_sentence(space: Space) -> None:
    space.apply(pod("still", "sleep 60"))
    space.wait_phase("still", "Running")
    for words in (
        ("exec", "still", "--", "true"),
        ("attach", "still"),
        ("port-forward", "still", "18999:80"),
    ):
        refused = space.run(*words)
        assert refused.returncode != 0
        assert "doesn't work on a process node" in refused.stderr + refused.stdout, words


def test_only_the_api_server_may_ask(control_plane: ControlPlane, process_node: ProcessNode) -> None:
    node = control_plane.kubectl("get", "node", process_node.name, "-o", "jsonpath={.status.daemonEndpoints}")
    port = node.stdout.split(":")[-1].rstrip("}")
    url = f"https://127.0.0.1:{port}/healthz"
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, verify=False)
    tls = ssl.create_default_context(cafile=str(control_plane.ca_file))
    pki = process_node.folder / "pki"
    client = next(path for path in pki.rglob("*client*.crt"))
    tls.load_cert_chain(client, client.with_suffix(".key"))
    answer = httpx.get(url, verify=tls)
    assert answer.status_code == 403
    assert "only the API server" in answer.text
