"""The files of volumes that show API data: configMap, secret, downwardAPI, projected. Pure.

`needed_objects` and `needed_tokens` say what to fetch; `files_of` lays it out. Called by `volumes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .api import Obj
from .atomic import FileEntry, UnsafePath, check_path
from .downward import PodFacts, UnknownField
from .downward import field as pod_field
from .downward import resource as pod_resource
from .env import Kind, Sources

DEFAULT_MODE: Final = 0o644
DEFAULT_EXPIRY_S: Final = 3600
DATA_KINDS: Final = ("configMap", "secret", "downwardAPI", "projected")
API_KINDS: Final[Mapping[str, Kind]] = {"configMap": "configmaps", "secret": "secrets"}


class VolumeError(Exception):
    """A volume can't be mounted now; said as a FailedMount event and tried again."""


@dataclass(frozen=True)
class TokenKey:
    """A service account token as a projected source asks for it."""

    audience: str
    expiry_s: int


def sources_of(volume: Obj) -> list[Obj]:
    """A projected volume's sources; any other data volume as its own single source."""
    if "projected" in volume:
        return list(volume["projected"].get("sources") or [])
    return [{kind: volume[kind]} for kind in DATA_KINDS if kind in volume]


def _name(source: Obj) -> str:
    return str(source.get("secretName") or source["name"])


def needed_objects(volume: Obj) -> set[tuple[Kind, str]]:
    return {
        (kind, _name(source[key]))
        for source in sources_of(volume)
        for key, kind in API_KINDS.items()
        if key in source
    }


def needed_tokens(volume: Obj) -> set[TokenKey]:
    return {_token_key(s["serviceAccountToken"]) for s in sources_of(volume) if "serviceAccountToken" in s}


def _token_key(source: Obj) -> TokenKey:
    return TokenKey(source.get("audience") or "", int(source.get("expirationSeconds") or DEFAULT_EXPIRY_S))


def files_of(
    volume: Obj, facts: PodFacts, sources: Sources, tokens: Mapping[TokenKey, str]
) -> dict[str, FileEntry]:
    """Path in the volume to its content. Raises VolumeError naming what is missing."""
    kind = next(kind for kind in DATA_KINDS if kind in volume)
    default = volume[kind].get("defaultMode")
    mode = DEFAULT_MODE if default is None else int(default)
    files: dict[str, FileEntry] = {}
    try:
        for source in sources_of(volume):
            for path, data, own_mode in _source_files(source, facts, sources, tokens):
                files[check_path(path)] = FileEntry(data, mode if own_mode is None else own_mode)
    except (UnsafePath, UnknownField, ValueError) as wrong:
        raise VolumeError(f"volume {volume['name']!r}: {wrong}") from wrong
    return files


Files = Iterator[tuple[str, bytes, int | None]]


def _source_files(source: Obj, facts: PodFacts, sources: Sources, tokens: Mapping[TokenKey, str]) -> Files:
    for key, kind in API_KINDS.items():
        if key in source:
            return _object_files(kind, source[key], facts, sources)
    if "downwardAPI" in source:
        return _downward_files(source["downwardAPI"], facts)
    if "serviceAccountToken" in source:
        wanted = source["serviceAccountToken"]
        token = tokens[_token_key(wanted)].encode()
        return iter([(str(wanted["path"]), token, None)])
    raise VolumeError(f"projected source {', '.join(source)} is not supported by a process node")


def _object_files(kind: Kind, source: Obj, facts: PodFacts, sources: Sources) -> Files:
    name, optional = _name(source), bool(source.get("optional"))
    data = sources.data(kind, name)
    if data is None:
        if optional:
            return
        raise VolumeError(f'{kind[:-1]} "{name}" not found')
    items: list[Any] | None = source.get("items")
    if not items:
        yield from ((key, value, None) for key, value in data.items())
        return
    for item in items:
        if item["key"] in data:
            yield item["path"], data[item["key"]], item.get("mode")
        elif not optional:
            namespace = facts.pod["metadata"]["namespace"]
            raise VolumeError(f"{kind[:-1]} {namespace}/{name} has no key {item['key']!r}")


def _downward_files(source: Obj, facts: PodFacts) -> Files:
    for item in source.get("items") or []:
        if "fieldRef" in item:
            value = pod_field(facts, item["fieldRef"]["fieldPath"])
        else:
            ref = item["resourceFieldRef"]
            value = pod_resource(facts, ref, ref.get("containerName") or "")
        yield item["path"], value.encode(), item.get("mode")
