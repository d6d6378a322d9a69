"""A pod's volumes on this host: made before its containers start, refreshed while they run, then removed.

One `PodVolumes` per pod, owned by its worker. Volumes of API data are folders swapped by `..data`; tokens are
fetched anew at 80% of their life. Memory volumes are a tmpfs of the one container that uses them, or a folder
of /dev/shm when several (or restarted ones) share them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from . import atomic
from .api import Api, ApiError, Obj
from .downward import PodFacts
from .env import ConfigError, expand
from .fetch import fetch
from .files import DATA_KINDS, TokenKey, VolumeError, files_of, needed_objects, needed_tokens
from .quantity import parse
from .sandbox import Mount

REFRESH_AT: Final = 0.8
KINDS: Final = (*DATA_KINDS, "emptyDir", "hostPath", "persistentVolumeClaim", "ephemeral")


@dataclass(frozen=True)
class Place:
    """Where a volume lies: a host path, or a tmpfs made with the container (path None)."""

    path: Path | None
    size_bytes: int | None = None
    read_only: bool = False


@dataclass(frozen=True)
class Token:
    """A service account token and when to fetch the next."""

    text: str
    refresh_at: datetime


class PodVolumes:
    """`folder` and `memory_folder` belong to this pod alone; `hidden` is never shown to any pod."""

    def __init__(
        self,
        api: Api,
        pod: Obj,
        folder: Path,
        memory_folder: Path,
        hidden: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._pod = pod
        self._volumes: list[Obj] = pod["spec"].get("volumes") or []
        self._folder = folder
        self._memory_folder = memory_folder
        self._hidden = hidden
        self._now = now
        self._tokens: dict[TokenKey, Token] = {}
        self._places: dict[str, Place] = {}

    @property
    def has_data(self) -> bool:
        return any(kind in volume for volume in self._volumes for kind in DATA_KINDS)

    async def prepare(self, facts: PodFacts) -> None:
        """Make all volumes. Errors: VolumeError, ApiError; may be called again after one."""
        for volume in self._volumes:
            self._places[volume["name"]] = await self._place(volume)
        await self.refresh(facts, cached=False)

    async def refresh(self, facts: PodFacts, *, cached: bool = True) -> None:
        """Bring volumes of API data up to date. After an error they show what they showed before."""
        data = [volume for volume in self._volumes if any(kind in volume for kind in DATA_KINDS)]
        wanted = {key for volume in data for key in needed_objects(volume)}
        sources = await fetch(self._api, self._pod["metadata"]["namespace"], wanted, cached=cached)
        tokens = await self._fresh_tokens({key for volume in data for key in needed_tokens(volume)})
        for volume in data:
            files = files_of(volume, facts, sources, tokens)
            atomic.write(self._folder / volume["name"], files, self._now())

    def mounts(self, container: Obj, variables: Mapping[str, str]) -> list[Mount]:
        """The container's volumeMounts. Raises ConfigError for a subPath that can't be."""
        return [self._mount(mount, variables) for mount in container.get("volumeMounts") or []]

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._memory_folder, ignore_errors=True)

    async def _place(self, volume: Obj) -> Place:
        name, kind = volume["name"], next((kind for kind in KINDS if kind in volume), None)
        if kind is None:
            what = ", ".join(key for key in volume if key != "name")
            raise VolumeError(
                f"volume {name!r}: a process node can't mount {what}; it knows {', '.join(KINDS)}"
            )
        if kind == "hostPath":
            return Place(self._host_path(name, volume[kind]))
        if kind == "persistentVolumeClaim":
            return await self._claimed(volume[kind]["claimName"], bool(volume[kind].get("readOnly")))
        if kind == "ephemeral":
            return await self._claimed(f"{self._pod['metadata']['name']}-{name}", read_only=False)
        if kind == "emptyDir" and (volume[kind] or {}).get("medium") == "Memory":
            return self._memory(name, volume[kind].get("sizeLimit"))
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777 if kind == "emptyDir" else 0o755)
        return Place(folder, read_only=kind in DATA_KINDS)

    def _memory(self, name: str, limit: str | None) -> Place:
        if self._pod["spec"].get("restartPolicy") == "Never" and self._used_once(name):
            return Place(None, int(parse(limit)) if limit else None)
        folder = self._memory_folder / name
        # Made only now: a node killed without a chance to clean up should leave nothing in memory.
        self._memory_folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        return Place(folder)

    def _used_once(self, name: str) -> bool:
        spec = self._pod["spec"]
        mounts = [
            mount
            for container in [*spec["containers"], *(spec.get("initContainers") or [])]
            for mount in container.get("volumeMounts") or []
            if mount["name"] == name
        ]
        return len(mounts) == 1 and not mounts[0].get("subPath") and not mounts[0].get("subPathExpr")

    def _host_path(self, name: str, source: Obj) -> Path:
        path, kind = Path(source["path"]), source.get("type") or ""
        real, hidden = path.resolve(), self._hidden.resolve()
        if hidden.is_relative_to(real) or real.is_relative_to(hidden):
            raise VolumeError(f"volume {name!r}: {path} would show the node's own state; choose another path")
        if kind == "DirectoryOrCreate":
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif kind == "FileOrCreate" and not path.exists():
            path.touch(0o644)
        is_right = {
            "Directory": path.is_dir,
            "DirectoryOrCreate": path.is_dir,
            "File": path.is_file,
            "FileOrCreate": path.is_file,
            "Socket": path.is_socket,
            "CharDevice": path.is_char_device,
            "BlockDevice": path.is_block_device,
        }.get(kind, path.exists)
        if not is_right():
            raise VolumeError(f"volume {name!r}: hostPath {path} is not a {kind or 'path of this machine'}")
        return path

    async def _claimed(self, claim_name: str, read_only: bool) -> Place:
        namespace = self._pod["metadata"]["namespace"]
        try:
            claim = await self._api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim_name}")
            volume_name = claim["spec"].get("volumeName")
            if not volume_name or claim.get("status", {}).get("phase") != "Bound":
                raise VolumeError(f'persistentvolumeclaim "{claim_name}" is not bound yet')
            spec = (await self._api.get(f"/api/v1/persistentvolumes/{volume_name}"))["spec"]
        except ApiError as refused:
            if refused.code == 404:
                raise VolumeError(str(refused)) from refused
            raise
        if "hostPath" in spec:
            return Place(self._host_path(volume_name, spec["hostPath"]), read_only=read_only)
        if "local" in spec:
            return Place(self._host_path(volume_name, {"path": spec["local"]["path"]}), read_only=read_only)
        raise VolumeError(f'persistentvolume "{volume_name}" is neither hostPath nor local')

    async def _fresh_tokens(self, wanted: Iterable[TokenKey]) -> dict[TokenKey, str]:
        for key in wanted:
            known = self._tokens.get(key)
            if known is None or self._now() >= known.refresh_at:
                self._tokens[key] = await self._request_token(key)
        return {key: token.text for key, token in self._tokens.items()}

    async def _request_token(self, key: TokenKey) -> Token:
        meta, spec = self._pod["metadata"], self._pod["spec"]
        account = spec.get("serviceAccountName") or "default"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [key.audience] if key.audience else [],
                "expirationSeconds": key.expiry_s,
                "boundObjectRef": bound,
            },
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        asked_at = self._now()
        status = (await self._api.create(path, request))["status"]
        expires = datetime.fromisoformat(status["expirationTimestamp"])
        return Token(status["token"], asked_at + (expires - asked_at) * REFRESH_AT)

    def _mount(self, mount: Obj, variables: Mapping[str, str]) -> Mount:
        place = self._places[mount["name"]]
        read_only = bool(mount.get("readOnly")) or place.read_only
        sub_path = mount.get("subPath") or expand(mount.get("subPathExpr") or "", variables)
        if place.path is None or not sub_path:
            return Mount(mount["mountPath"], place.path, read_only, place.size_bytes)
        root = place.path.resolve()
        source = (root / sub_path).resolve()
        if not source.is_relative_to(root):
            raise ConfigError(f"subPath {sub_path!r} leaves volume {mount['name']!r}")
        if not source.exists():
            if place.read_only:
                raise ConfigError(f"subPath {sub_path!r} doesn't exist in volume {mount['name']!r}")
            source.mkdir(mode=0o755, parents=True)
        return Mount(mount["mountPath"], source, read_only)
