"""The names that pods know each other by, as lines of /etc/hosts. Pure; `directory` keeps the files.

A Service without a proxy is the address of a pod behind it: a headless one all of them, any other the first
ready one. So its port must equal its target port, which `port_warnings` checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from typing import Final

from .api import Obj

DOMAIN: Final = "svc.cluster.local"
FIRST_ADDRESS: Final = int(IPv4Address("127.64.0.0"))
ADDRESSES: Final = 1 << 22  # 127.64.0.0/10
LOWEST_PORT: Final = 1024
LOCAL: Final = ("127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback")


def pod_address(uid: str, taken: Collection[str]) -> str:
    """A loopback address for a pod: the same for the same uid, unless another pod has it."""
    number = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")
    for step in range(ADDRESSES):
        offset = (number + step) % ADDRESSES
        address = str(IPv4Address(FIRST_ADDRESS + offset))
        if offset % 256 not in (0, 255) and address not in taken:
            return address
    raise RuntimeError("every loopback address for pods is taken")


def own_lines(pod: Obj, address: str, hostname: str) -> list[str]:
    """What a kubelet writes about the pod itself."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    names = [hostname]
    if spec.get("subdomain"):
        names.insert(0, f"{hostname}.{spec['subdomain']}.{namespace}.{DOMAIN}")
    aliases = [f"{one['ip']} {' '.join(one.get('hostnames') or [])}" for one in spec.get("hostAliases") or []]
    return [f"{address} {' '.join(names)}", *aliases]


def shared_lines(namespace: str, pods: Sequence[Obj], services: Iterable[Obj], api_host: str) -> list[str]:
    """The names of Services and of pods behind headless ones, as seen from `namespace`."""
    lines = [f"{api_host} kubernetes.default kubernetes.default.svc kubernetes.default.{DOMAIN}"]
    if namespace == "default":
        lines.append(f"{api_host} kubernetes")
    for service in sorted(services, key=_key):
        behind = backing(service, pods)
        headless = service["spec"].get("clusterIP") == "None"
        meta = service["metadata"]
        for pod in behind if headless else behind[:1]:
            address = pod["status"]["podIP"]
            lines.append(_line(address, meta["name"], meta["namespace"], namespace))
            if headless and pod["spec"].get("subdomain") == meta["name"] and pod["spec"].get("hostname"):
                name = f"{pod['spec']['hostname']}.{meta['name']}"
                lines.append(_line(address, name, meta["namespace"], namespace))
    return lines


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _line(address: str, name: str, of: str, seen_from: str) -> str:
    names = [f"{name}.{of}", f"{name}.{of}.svc", f"{name}.{of}.{DOMAIN}"]
    return " ".join([address, *([name] if of == seen_from else []), *names])


def backing(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The pods behind a Service, oldest first; ready ones only, unless it publishes the others too."""
    spec = service["spec"]
    selector = spec.get("selector") or {}
    if not selector or spec.get("type") == "ExternalName":
        return []
    found = [
        pod
        for pod in pods
        if pod["metadata"]["namespace"] == service["metadata"]["namespace"]
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and _serves(pod, bool(spec.get("publishNotReadyAddresses")))
    ]
    return sorted(found, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", *_key(pod)))


def _serves(pod: Obj, unready_too: bool) -> bool:
    status = pod.get("status") or {}
    if not status.get("podIP") or status.get("phase") in ("Succeeded", "Failed"):
        return False
    if unready_too:
        return True
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    return ready and "deletionTimestamp" not in pod["metadata"]


def port_warnings(service: Obj, pods: Iterable[Obj]) -> Iterator[str]:
    """Ports of a Service that can't work here: nothing translates one port into another."""
    if service["spec"].get("clusterIP") == "None":
        return  # its users take the pods' own ports, on any cluster
    behind = backing(service, pods)
    for port in service["spec"].get("ports") or []:
        target = port.get("targetPort") or port["port"]
        if isinstance(target, str):
            target = next((n for pod in behind for n in _named_ports(pod, target)), port["port"])
        if target != port["port"]:
            yield (
                f"port {port['port']} leads to {target} on a cluster, but a process node forwards no ports: "
                f"make port and targetPort equal, or use port {target}"
            )
        elif target < LOWEST_PORT:
            yield f"port {target} is below {LOWEST_PORT}: containers here may not listen there"


def _named_ports(pod: Obj, name: str) -> Iterator[int]:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("name") == name:
                yield port["containerPort"]


def hosts_text(own: Sequence[str], shared: Sequence[str]) -> str:
    return "\n".join(["# Kept by the process node, in place of DNS.", *LOCAL, *own, *shared]) + "\n"
