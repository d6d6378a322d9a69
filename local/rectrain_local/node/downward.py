"""What a pod may ask about itself: fieldRef and resourceFieldRef, for environment and volumes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .api import Obj
from .quantity import in_units

KEYED: Final = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


@dataclass(frozen=True)
class PodFacts:
    """The pod as its containers may see it. `allocatable` stands in for limits that aren't set."""

    pod: Obj
    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]


class UnknownField(ValueError):
    """A field that no container may ask for."""


def field(facts: PodFacts, path: str) -> str:
    """The value of a fieldRef."""
    meta, spec = facts.pod["metadata"], facts.pod["spec"]
    if keyed := KEYED.fullmatch(path):
        return str((meta.get(keyed[1]) or {}).get(keyed[2], ""))
    known = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "metadata.labels": _map_lines(meta.get("labels") or {}),
        "metadata.annotations": _map_lines(meta.get("annotations") or {}),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in known:
        raise UnknownField(f"fieldRef {path!r} is not a field that a pod can ask for")
    return str(known[path])


def resource(facts: PodFacts, ref: Obj, container_name: str) -> str:
    """The value of a resourceFieldRef, in units of its divisor, rounded up."""
    name = ref.get("containerName") or container_name
    containers = [*facts.pod["spec"]["containers"], *(facts.pod["spec"].get("initContainers") or [])]
    container = next((c for c in containers if c["name"] == name), None)
    kind, _, resource_name = str(ref["resource"]).partition(".")
    if container is None or kind not in ("limits", "requests") or not resource_name:
        raise UnknownField(f"resourceFieldRef {ref['resource']!r} of container {name!r} doesn't exist")
    resources = container.get("resources") or {}
    value = (resources.get(kind) or {}).get(resource_name)
    if value is None:
        # A kubelet shows the node's allocatable for a limit that isn't set, and 0 for a request.
        value = facts.allocatable.get(resource_name, "0") if kind == "limits" else "0"
    divisor = str(ref.get("divisor") or "1")
    return str(in_units(str(value), "1" if divisor == "0" else divisor))


def _map_lines(entries: Mapping[str, str]) -> str:
    quoted = (
        value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in entries.values()
    )
    return "\n".join(f'{key}="{value}"' for key, value in sorted(zip(entries, quoted, strict=True)))
