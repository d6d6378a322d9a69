"""What a pod's parts share: identity, places on disk, the node around them. Made by `pod`, passed down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .api import Api, Obj
from .config import NodeConfig
from .downward import PodFacts
from .events import Events
from .logfile import LogFile
from .sandbox import HostRoot
from .volumes import PodVolumes

HOST_IP: Final = "127.0.0.1"


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class NodeContext:
    """The node as its pods see it."""

    config: NodeConfig
    api: Api
    events: Events
    root: HostRoot
    allocatable: Mapping[str, str]
    live_logs: dict[Path, LogFile]
    memory_dir: Path

    def pod_dir(self, uid: str) -> Path:
        return self.config.state_dir / "pods" / uid

    def log_dir(self, uid: str) -> Path:
        return self.config.state_dir / "logs" / uid

    def service_variables(self) -> dict[str, str]:
        """Where the API server really is: there is no proxy in front of it."""
        address = urlsplit(self.config.server)
        port = str(address.port or 443)
        return {
            "KUBERNETES_SERVICE_HOST": address.hostname or HOST_IP,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
        }


@dataclass
class PodContext:
    """One pod; `pod` is replaced when the API object changes."""

    node: NodeContext
    pod: Obj
    pod_ip: str
    volumes: PodVolumes
    changed: Callable[[], None]

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def hostname(self) -> str:
        return str(self.pod["spec"].get("hostname") or self.name)[:63].rstrip("-.")

    @property
    def folder(self) -> Path:
        return self.node.pod_dir(self.uid)

    @property
    def hosts_file(self) -> Path:
        return self.folder / "hosts"

    def facts(self) -> PodFacts:
        return PodFacts(self.pod, self.pod_ip, HOST_IP, self.node.allocatable)

    def log_path(self, container: str, instance: int) -> Path:
        return self.node.log_dir(self.uid) / container / f"{instance}.log"
