"""The environment, command and arguments of a container. Pure: what it needs is fetched before.

`needed` says which ConfigMaps and Secrets to fetch; `resolve` builds the variables as a kubelet does
(envFrom, then env; each may refer to earlier ones as $(NAME)); `expand` does so for command and arguments.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from .api import Obj
from .downward import PodFacts, UnknownField
from .downward import field as pod_field
from .downward import resource as pod_resource

Kind = Literal["configmaps", "secrets"]
REFERENCE: Final = re.compile(r"\$(\$|\([A-Za-z_.\-][A-Za-z0-9_.\-]*\))")
SINGULAR: Final[Mapping[Kind, str]] = {"configmaps": "configmap", "secrets": "secret"}


class ConfigError(Exception):
    """A container can't be configured yet: reason CreateContainerConfigError, tried again later."""


@dataclass(frozen=True)
class Sources:
    """ConfigMaps and Secrets by kind and name, as fetched; None for one that doesn't exist."""

    objects: Mapping[tuple[Kind, str], Obj | None] = field(default_factory=dict)

    def data(self, kind: Kind, name: str) -> Mapping[str, bytes] | None:
        found = self.objects.get((kind, name))
        return None if found is None else payload(kind, found)


def payload(kind: Kind, obj: Obj) -> dict[str, bytes]:
    """The bytes of a ConfigMap's or Secret's keys."""
    if kind == "secrets":
        return {key: base64.b64decode(value or "") for key, value in (obj.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return plain | binary


def needed(container: Obj) -> set[tuple[Kind, str]]:
    """The ConfigMaps and Secrets that the container's environment names."""
    found: set[tuple[Kind, str]] = set()
    for source in container.get("envFrom") or []:
        for key, kind in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if key in source:
                found.add((kind, source[key]["name"]))  # type: ignore[arg-type]
    for variable in container.get("env") or []:
        for key, kind in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if key in (variable.get("valueFrom") or {}):
                found.add((kind, variable["valueFrom"][key]["name"]))  # type: ignore[arg-type]
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """$(NAME) by its value, $$ by $; an unknown name stays as written."""

    def one(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return variables.get(found[1][1:-1], found[0])

    return REFERENCE.sub(one, text)


def resolve(container: Obj, base: Mapping[str, str], facts: PodFacts, sources: Sources) -> dict[str, str]:
    """All variables: the image's and the node's (`base`), then envFrom, then env."""
    variables = {**base, **dict(_from_whole(container, sources))}
    for variable in container.get("env") or []:
        if "valueFrom" in variable:
            found = _value_from(variable["valueFrom"], container["name"], facts, sources)
            if found is not None:
                variables[variable["name"]] = found
        else:
            variables[variable["name"]] = expand(variable.get("value") or "", variables)
    return variables


def _from_whole(container: Obj, sources: Sources) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or []:
        kind: Kind = "configmaps" if "configMapRef" in source else "secrets"
        ref = source.get("configMapRef") or source.get("secretRef") or {}
        data = sources.data(kind, ref["name"])
        if data is None:
            if ref.get("optional"):
                continue
            raise ConfigError(f'{SINGULAR[kind]} "{ref["name"]}" not found')
        for key, value in data.items():
            yield (source.get("prefix") or "") + key, _text(value)


def _value_from(source: Obj, container_name: str, facts: PodFacts, sources: Sources) -> str | None:
    try:
        if "fieldRef" in source:
            return pod_field(facts, source["fieldRef"]["fieldPath"])
        if "resourceFieldRef" in source:
            return pod_resource(facts, source["resourceFieldRef"], container_name)
    except (UnknownField, ValueError) as unknown:
        raise ConfigError(str(unknown)) from unknown
    for key, kind in KEY_REFS:
        if key in source:
            return _key(kind, source[key], facts, sources)
    raise ConfigError(f"valueFrom {', '.join(source)} is not supported by a process node")


KEY_REFS: Final[tuple[tuple[str, Kind], ...]] = (
    ("configMapKeyRef", "configmaps"),
    ("secretKeyRef", "secrets"),
)


def _key(kind: Kind, ref: Obj, facts: PodFacts, sources: Sources) -> str | None:
    data = sources.data(kind, ref["name"])
    if data is not None and ref["key"] in data:
        return _text(data[ref["key"]])
    if ref.get("optional"):
        return None
    if data is None:
        raise ConfigError(f'{SINGULAR[kind]} "{ref["name"]}" not found')
    namespace = facts.pod["metadata"]["namespace"]
    label = "ConfigMap" if kind == "configmaps" else "Secret"
    raise ConfigError(f"couldn't find key {ref['key']} in {label} {namespace}/{ref['name']}")


def _text(value: bytes) -> str:
    if b"\0" in value:
        raise ConfigError("an environment variable can't hold a zero byte")
    return value.decode("utf-8", "surrogateescape")
