"""Hosts files: who is found under which name."""

from pathlib import Path
from typing import Any

from rectrain_local.node.directory import write_in_place
from rectrain_local.node.names import hosts_text, own_lines, pod_address, port_warnings, shared_lines


def pod(name: str, ip: str, *, ready: bool = True, namespace: str = "ns", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "x"}},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]} | spec,
        "status": {
            "podIP": ip,
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"selector": {"app": "x"}} | spec}


def resolve(lines: list[str], name: str) -> list[str]:
    return [line.split()[0] for line in lines if name in line.split()[1:]]


def test_a_service_is_its_first_ready_pod() -> None:
    pods = [pod("a", "1", ready=False), pod("c", "3"), pod("b", "2")]
    lines = shared_lines("ns", pods, [service("web", clusterIP="10.0.0.1")], "9")
    for name in ("web", "web.ns", "web.ns.svc", "web.ns.svc.cluster.local"):
        assert resolve(lines, name) == ["2"]
    elsewhere = shared_lines("other", pods, [service("web")], "9")
    assert resolve(elsewhere, "web") == []
    assert resolve(elsewhere, "web.ns") == ["2"]


def test_a_headless_service_is_all_its_pods_and_names_them() -> None:
    pods = [
        pod("a", "1", hostname="h0", subdomain="peers"),
        pod("b", "2", hostname="h1", subdomain="peers", ready=False),
        pod("c", "3", namespace="other", hostname="h2", subdomain="peers"),
    ]
    lines = shared_lines("ns", pods, [service("peers", clusterIP="None")], "9")
    assert resolve(lines, "peers") == ["1"]
    assert resolve(lines, "h1.peers") == []
    early = service("peers", clusterIP="None", publishNotReadyAddresses=True)
    lines = shared_lines("ns", pods, [early], "9")
    assert resolve(lines, "peers") == ["1", "2"]
    assert resolve(lines, "h1.peers") == resolve(lines, "h1.peers.ns.svc.cluster.local") == ["2"]
    assert resolve(lines, "h2.peers.ns") == []


def test_pods_that_are_over_or_leaving_are_not_found() -> None:
    over, leaving = pod("a", "1"), pod("b", "2")
    over["status"]["phase"] = "Failed"
    leaving["metadata"]["deletionTimestamp"] = "t"
    assert resolve(shared_lines("ns", [over, leaving], [service("web")], "9"), "web") == []


def test_services_without_pods_of_their_own() -> None:
    outside = service("out", type="ExternalName")
    manual = service("manual", selector=None)
    lines = shared_lines("default", [pod("a", "1")], [outside, manual], "9")
    assert resolve(lines, "out") == resolve(lines, "manual") == []
    assert resolve(lines, "kubernetes") == resolve(lines, "kubernetes.default.svc") == ["9"]


def test_a_pod_knows_itself() -> None:
    aliases = [{"ip": "5", "hostnames": ["x", "y"]}]
    mine = pod("a", "1", subdomain="peers", hostAliases=aliases)
    assert own_lines(mine, "1", "h0") == ["1 h0.peers.ns.svc.cluster.local h0", "5 x y"]
    text = hosts_text(["1 h0"], ["2 web"])
    assert "127.0.0.1 localhost\n" in text
    assert text.endswith("1 h0\n2 web\n")


def test_addresses_are_stable_and_differ() -> None:
    first = pod_address("uid", set())
    assert first == pod_address("uid", set())
    assert first.startswith("127.")
    assert pod_address("uid", {first}) not in (first, "")
    many: set[str] = set()
    for number in range(2000):
        many.add(pod_address(str(number), many))
    assert len(many) == 2000
    assert not any(address.endswith((".0", ".255")) for address in many)


def test_ports_that_nothing_translates() -> None:
    pods = [pod("a", "1")]

    def said(**port: Any) -> str:
        return " ".join(port_warnings(service("web", ports=[port]), pods))

    assert said(port=8080) == ""
    assert said(port=8080, targetPort="http") == ""
    assert "use port 8080" in said(port=80, targetPort="http")
    assert "below 1024" in said(port=80)
    assert not list(port_warnings(service("web", clusterIP="None", ports=[{"port": 80}]), pods))


def test_a_hosts_file_is_rewritten_under_the_same_inode(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    write_in_place(path, "a long first text\n")
    inode = path.stat().st_ino
    write_in_place(path, "short\n")
    assert path.read_text() == "short\n"
    assert path.stat().st_ino == inode
