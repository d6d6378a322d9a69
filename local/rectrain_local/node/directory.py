"""Keeps each pod's /etc/hosts: watches all pods and services as the reader, rewrites what changed.

A node may list its own pods only, hence the second identity. The files are bind-mounted, so they are written
in place: a rename would not be seen through the mount. `agent` runs it, `pod` attaches and detaches.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .api import Api, Obj
from .events import Events
from .names import hosts_text, port_warnings, shared_lines
from .reflector import Reflector

SETTLE_S: Final = 0.05


@dataclass(frozen=True)
class _Attached:
    namespace: str
    file: Path
    own: list[str]


def write_in_place(path: Path, text: str) -> None:
    """New content under the same inode; a reader meets the old or the new, or for a moment both."""
    data = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


class Directory:
    """Names for the pods of this node."""

    def __init__(self, reader: Api, events: Events, api_host: str) -> None:
        self._events = events
        self._api_host = api_host
        self._attached: dict[str, _Attached] = {}
        self._written: dict[str, str] = {}
        self._warned: set[tuple[str, str]] = set()
        self._dirty = asyncio.Event()
        self.pods = Reflector(reader, "/api/v1/pods", self._pod_changed)
        self._services = Reflector(reader, "/api/v1/services", self._service_changed)

    def attach(self, uid: str, namespace: str, file: Path, own: list[str]) -> None:
        """From now on keep this file; it exists when the call returns."""
        self._attached[uid] = _Attached(namespace, file, own)
        self._write(uid, self._shared(namespace))

    def detach(self, uid: str) -> None:
        self._attached.pop(uid, None)
        self._written.pop(uid, None)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pods.run())
            group.create_task(self._services.run())
            group.create_task(self._keep())

    def taken(self) -> set[str]:
        """Addresses of all pods that may still use them."""
        statuses = (pod.get("status") or {} for pod in self.pods.objects.values())
        return {status["podIP"] for status in statuses if "podIP" in status}

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None or _of_interest(old) != _of_interest(new):
            self._dirty.set()

    def _service_changed(self, _old: Obj | None, _new: Obj | None) -> None:
        self._dirty.set()

    async def _keep(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SETTLE_S)  # many pods often change together
            self._dirty.clear()
            shared = {name: self._shared(name) for name in {one.namespace for one in self._attached.values()}}
            for uid, attached in self._attached.items():
                self._write(uid, shared[attached.namespace])
            self._warn()

    def _shared(self, namespace: str) -> list[str]:
        pods, services = self.pods.objects.values(), self._services.objects.values()
        return shared_lines(namespace, list(pods), services, self._api_host)

    def _write(self, uid: str, shared: list[str]) -> None:
        attached = self._attached[uid]
        text = hosts_text(attached.own, shared)
        if self._written.get(uid) != text:
            write_in_place(attached.file, text)
            self._written[uid] = text

    def _warn(self) -> None:
        for uid, service in self._services.objects.items():
            if service["metadata"]["name"] == "kubernetes" and service["metadata"]["namespace"] == "default":
                continue
            for warning in port_warnings(service, self.pods.objects.values()):
                if (uid, warning) not in self._warned:
                    self._warned.add((uid, warning))
                    self._events.emit({"kind": "Service"} | service, "Warning", "PortNotForwarded", warning)


def _of_interest(pod: Obj) -> tuple[object, ...]:
    status = pod.get("status") or {}
    ready = [c["status"] for c in status.get("conditions") or [] if c["type"] == "Ready"]
    meta = pod["metadata"]
    return status.get("podIP"), status.get("phase"), ready, meta.get("labels"), meta.get("deletionTimestamp")
