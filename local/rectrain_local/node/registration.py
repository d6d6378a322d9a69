"""The Node object and its Lease: how the control plane knows that this node lives. Run by `agent`."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from .api import Api, ApiError, ApiUnreachable, Obj
from .config import NodeConfig
from .context import HOST_IP, utc_now
from .status import rfc3339

log = logging.getLogger(__name__)

LEASE_S: Final = 40
RENEW_S: Final = 10.0
STATUS_EVERY: Final = 6  # renewals
RETRY_S: Final = 1.0
TAINT_POLL_S: Final = 0.2
TAINT_WAIT_S: Final = 20.0
VERSION: Final = "v1.37.0"
SAYS_IT_IS: Final = "rectrain.dev/process-node"


def capacity(config: NodeConfig) -> dict[str, str]:
    """What the configuration says; what it leaves out as this machine has it."""
    page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{page // 1024}Ki",
        "pods": "110",
        "ephemeral-storage": f"{shutil.disk_usage(config.state_dir).total // 1024}Ki",
    }
    return found | config.capacity


def node_object(config: NodeConfig) -> Obj:
    labels = {
        "kubernetes.io/hostname": config.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            platform.machine(), platform.machine()
        ),
        SAYS_IT_IS: "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": config.name, "labels": labels | config.labels},
        "spec": {"providerID": f"process://{config.name}"},
    }


def node_status(config: NodeConfig, resources: Mapping[str, str], port: int, conditions: list[Obj]) -> Obj:
    # Only an InternalIP: a Hostname address would be tried first, and doesn't resolve on the host.
    return {
        "capacity": dict(resources),
        "allocatable": dict(resources),
        "conditions": conditions,
        "addresses": [{"type": "InternalIP", "address": HOST_IP}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            "machineID": config.name,
            "systemUUID": config.name,
            "bootID": _first_line(Path("/proc/sys/kernel/random/boot_id")),
            "kernelVersion": platform.release(),
            "osImage": "host (process node)",
            "containerRuntimeVersion": "bubblewrap://host",
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": platform.machine(),
        },
    }


def _first_line(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def conditions(now: datetime, since: datetime) -> list[Obj]:
    """Ready, and none of the pressures a kubelet would report."""
    kinds = {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", "not measured by a process node"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "not measured by a process node"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "not measured by a process node"),
        "Ready": ("True", "KubeletReady", "the process node is running"),
    }
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": rfc3339(now),
            "lastTransitionTime": rfc3339(since),
        }
        for kind, (status, reason, message) in kinds.items()
    ]


class Registration:
    """Registers the node and keeps it alive; `ready` is set once pods can be bound to it."""

    def __init__(self, api: Api, config: NodeConfig, resources: Mapping[str, str], port: int) -> None:
        self._api = api
        self._config = config
        self._resources = resources
        self._port = port
        self._since = utc_now()
        self.ready = asyncio.Event()

    @property
    def _path(self) -> str:
        return f"/api/v1/nodes/{self._config.name}"

    async def run(self) -> None:
        """For ever. A Node or Lease that somebody deleted is made again."""
        beat, registered = 0, False
        while True:
            try:
                if not registered:
                    await self._register()
                    registered, beat = True, 0
                if beat % STATUS_EVERY == 0:
                    await self._report()
                await self._renew()
                if not self.ready.is_set():
                    await self._untainted()
                    self.ready.set()
            except (ApiError, ApiUnreachable) as failed:
                registered = registered and not (isinstance(failed, ApiError) and failed.code == 404)
                log.info("the node's heartbeat waits: %s", failed)
                await asyncio.sleep(RETRY_S)
                continue
            beat += 1
            await asyncio.sleep(RENEW_S)

    async def _register(self) -> None:
        node = node_object(self._config)
        try:
            await self._api.create("/api/v1/nodes", node)
        except ApiError as refused:
            if refused.code != 409:
                raise
            await self._api.merge(self._path, {"metadata": {"labels": node["metadata"]["labels"]}})

    async def _report(self) -> None:
        beat = conditions(utc_now(), self._since)
        status = node_status(self._config, self._resources, self._port, beat)
        # `addresses` merges by type, so one of an earlier agent would stay; a node here has only this one.
        await self._api.merge(f"{self._path}/status", {"status": status})

    async def _renew(self) -> None:
        collection = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        now = utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._config.name, "leaseDurationSeconds": LEASE_S, "renewTime": now}
        try:
            await self._api.merge(f"{collection}/{self._config.name}", {"spec": spec})
        except ApiError as refused:
            if refused.code != 404:
                raise
            node = await self._api.get(self._path)
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._config.name}
            meta = {
                "name": self._config.name,
                "namespace": "kube-node-lease",
                "ownerReferences": [owner | {"uid": node["metadata"]["uid"]}],
            }
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            await self._api.create(collection, lease)

    async def _untainted(self) -> None:
        """Wait until the controllers have seen Ready; without any (a bare API server) not for ever."""
        for _ in range(int(TAINT_WAIT_S / TAINT_POLL_S)):
            node = await self._api.get(self._path)
            taints = {taint["key"] for taint in node["spec"].get("taints") or []}
            if "node.kubernetes.io/not-ready" not in taints:
                return
            await asyncio.sleep(TAINT_POLL_S)
