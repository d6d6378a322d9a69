"""A whole cluster: control plane, S3 and process nodes, started and stopped as one.

Used by `supervisor` and `cli`. A stand-in, real where it matters to software that speaks to the Kubernetes
API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_local.assets.resolve import Binaries
from rectrain_local.controlplane import ControlPlane
from rectrain_local.errors import LocalError
from rectrain_local.nodes import NodeSpec, ProcessNode
from rectrain_local.processes import undisturbed
from rectrain_local.s3 import SeaweedS3

WHAT_IT_IS: Final = (
    "This is a stand-in for a cluster: Kubernetes' own API server, controllers and scheduler, S3 by "
    "SeaweedFS. Its nodes run containers as sandboxed processes of this machine. What it doesn't do: pull "
    "images (a name selects an environment of this machine), enforce CPU and memory limits, route Services' "
    "cluster IPs, exec and port-forward."
)


@dataclass(frozen=True)
class ClusterSpec:
    """What was asked for."""

    nodes: int
    gpus: int
    """Per node: counted for scheduling, not backed by devices."""
    images: Mapping[str, str]
    """Image name pattern -> Python environment of this machine."""


class Cluster:
    """`start()` returns when everything is ready; `stop()` may be called always, and twice."""

    def __init__(self, folder: Path, spec: ClusterSpec, binaries: Binaries, bwrap: Path | None) -> None:
        self.control_plane = ControlPlane(folder / "control-plane", binaries)
        self.s3 = SeaweedS3(folder / "s3", binaries.weed)
        images = {name: Path(environment) for name, environment in spec.images.items()}
        self.nodes = [
            ProcessNode(folder / "nodes" / name, NodeSpec(name, images, spec.gpus), self.control_plane, bwrap)
            for name in (f"node-{number + 1}" for number in range(spec.nodes))
            if bwrap is not None
        ]

    @property
    def env(self) -> dict[str, str]:
        """How programs reach it."""
        return {"KUBECONFIG": str(self.control_plane.kubeconfig), **self.s3.env}

    def start(self, progress: Callable[[str], None]) -> None:
        try:
            self.control_plane.start(progress)
            self.s3.start(progress)
            for node in self.nodes:
                node.start(progress)
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raise ComponentFailed if a part has died."""
        self.control_plane.check()
        self.s3.check()
        for node in self.nodes:
            node.check()

    def failure(self) -> LocalError | None:
        """The error that `check` would raise, if any."""
        try:
            self.check()
        except LocalError as failed:
            return failed
        return None

    def processes(self) -> dict[str, int]:
        """Name and PID of every running part."""
        children = [self.control_plane.children, self.s3.children, *(node.children for node in self.nodes)]
        return {child.name: child.pid for group in children for child in group}

    def stop(self) -> None:
        with undisturbed():
            for node in reversed(self.nodes):
                node.stop()
            self.s3.stop()
            self.control_plane.stop()
