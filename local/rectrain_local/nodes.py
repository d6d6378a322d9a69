"""Starts process nodes: writes their configuration and credentials, runs their agents. Used by `cluster`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rectrain_local.controlplane import ControlPlane
from rectrain_local.environments import describe
from rectrain_local.files import private_dir, write_private
from rectrain_local.ports import LOOPBACK
from rectrain_local.processes import Child, Children, plain_environment, start, wait_until

READY_DEADLINE_S: Final = 60.0
STOP_GRACE_S: Final = 20.0


@dataclass(frozen=True)
class NodeSpec:
    """One node as asked for."""

    name: str
    images: Mapping[str, Path]
    """Image name pattern -> Python environment of the host."""
    gpus: int = 0
    capacity: Mapping[str, str] = field(default_factory=dict)
    """Beside `nvidia.com/gpu`; what is left out is the machine's own."""
    labels: Mapping[str, str] = field(default_factory=dict)


class ProcessNode:
    """One node agent. Stopping it is a power cut for its pods; `start()` again reports them failed."""

    def __init__(self, folder: Path, spec: NodeSpec, control_plane: ControlPlane, bwrap: Path) -> None:
        self.folder = folder
        self.spec = spec
        self.children = Children()
        self._control_plane = control_plane
        self._bwrap = bwrap

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        return self.children.get(self.name).pid

    def start(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Start the agent and wait until its Node is Ready."""
        progress(f"starting node {self.name}")
        self._ready_file.unlink(missing_ok=True)
        child = self.children.add(self._launch())
        wait_until(
            self._ready_file.exists,
            what=f"node {self.name}",
            deadline_s=READY_DEADLINE_S,
            check=self.children.check,
            child=child,
        )

    def stop(self, *, kill: bool = False) -> None:
        self.children.stop(self.name, grace_s=0.0 if kill else STOP_GRACE_S)

    def check(self) -> None:
        """Raise ComponentFailed if the agent has died."""
        self.children.check()

    @property
    def _ready_file(self) -> Path:
        return self.folder / "ready"

    def _launch(self) -> Child:
        config = self.folder / "config.json"
        if not config.exists():
            private_dir(self.folder)
            write_private(config, json.dumps(self._config(), indent=2))
        return start(
            self.name,
            [sys.executable, "-m", "rectrain_local.node", str(config)],
            log=self.folder / "agent.log",
            # The agent needs PYTHONPATH and the like as we have them; containers get none of it.
            env=plain_environment({k: v for k, v in os.environ.items() if k.startswith("PYTHON")}),
            cwd=self.folder,
        )

    def _config(self) -> dict[str, object]:
        plane, spec = self._control_plane, self.spec
        client, serving = plane.issue_node_credentials(self.name, self.folder / "pki")
        gpus = {"nvidia.com/gpu": str(spec.gpus)} if spec.gpus else {}
        return {
            "name": self.name,
            "server": plane.server,
            "ca_file": str(plane.ca_file),
            "client_cert_file": str(client.cert),
            "client_key_file": str(client.key),
            "serving_cert_file": str(serving.cert),
            "serving_key_file": str(serving.key),
            "kubelet_client_ca_file": str(plane.ca_file),
            "kubelet_client_name": plane.kubelet_client_name,
            "reader_kubeconfig": str(plane.reader_kubeconfig),
            "state_dir": str(private_dir(self.folder / "state")),
            "listen_host": LOOPBACK,
            "listen_port": 0,
            "capacity": {**spec.capacity, **gpus},
            "labels": dict(spec.labels),
            "environments": {pattern: describe(folder) for pattern, folder in spec.images.items()},
            "bwrap": str(self._bwrap),
            "ready_file": str(self._ready_file),
        }
