"""One pod's life on this node: volumes, init containers, containers, status, end, deletion.

`agent` makes a `PodWorker` for each pod bound to the node, runs it, and tells it what the watch sees.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from .api import ApiError, ApiUnreachable, Obj
from .container import ContainerRunner
from .context import HOST_IP, NodeContext, PodContext, utc_now
from .directory import Directory
from .files import VolumeError
from .names import LOWEST_PORT, own_lines
from .status import PodView, build
from .volumes import PodVolumes

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.02
REFRESH_S: Final = 2.0
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 10.0
SIDECAR_GRACE_S: Final = 2.0
GONE: Final = (404, 409)  # deleted, or another pod of the same name


def unsupported(pod: Obj) -> str | None:
    """What the pod asks for that would be wrong to ignore."""
    spec = pod["spec"]
    for field in ("hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(field):
            return f"spec.{field}: each container of a process node has a process namespace of its own"
    if (spec.get("os") or {}).get("name") == "windows":
        return "spec.os: a process node runs Linux programs"
    return None


class PodWorker:
    """`update` and `gone` come from the watch; `run` is the task."""

    def __init__(self, node: NodeContext, pod: Obj, pod_ip: str, directory: Directory) -> None:
        self._node = node
        self._directory = directory
        self.pod_ip = HOST_IP if pod["spec"].get("hostNetwork") else pod_ip
        uid = pod["metadata"]["uid"]
        volumes = PodVolumes(
            node.api, pod, node.pod_dir(uid) / "volumes", node.memory_dir / uid, node.config.state_dir
        )
        self._context = PodContext(node, pod, self.pod_ip, volumes, self._changed)
        spec = pod["spec"]
        self._inits = [
            ContainerRunner(self._context, one, "sidecar" if one.get("restartPolicy") == "Always" else "init")
            for one in spec.get("initContainers") or []
        ]
        self._mains = [ContainerRunner(self._context, one, "main") for one in spec["containers"]]
        self._start_time = utc_now()
        self._sandbox_ready = self._finished = False
        self._failure: tuple[str, str] | None = None
        self._stop = asyncio.Event()
        self._stop_at = float("inf")
        self._delete_wanted = asyncio.Event()
        self._gone = False
        self._dirty = asyncio.Event()
        self._change = asyncio.Event()
        self._published: Obj = {}
        self.update(pod)

    # -- what the watch sees --------------------------------------------------------------------------------

    def update(self, pod: Obj) -> None:
        self._context.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._delete_wanted.set()
            self._end(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
        self._changed()

    def gone(self) -> None:
        """The API object is away (a forced deletion): nobody reads the status any more."""
        self._gone = True
        self._delete_wanted.set()
        self._end(0.0)

    def abort(self) -> None:
        """Our own error: its processes must go, and somebody else reports the pod."""
        self._gone = True
        self._end(0.0)

    def _end(self, grace_s: float) -> None:
        self._stop.set()
        loop = asyncio.get_running_loop()
        self._stop_at = min(self._stop_at, loop.time() + grace_s)
        for runner in (*self._mains, *self._inits):
            if runner.record.kind != "sidecar":
                runner.stop(self._stop_at - loop.time())
        self._changed()

    # -- the task -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From binding to deletion."""
        context = self._context
        context.folder.mkdir(parents=True, exist_ok=True)
        own = own_lines(context.pod, self.pod_ip, context.hostname)
        self._directory.attach(context.uid, context.namespace, context.hosts_file, own)
        background = [
            asyncio.create_task(one) for one in (self._publish_changes(), self._refresh(), self._deadline())
        ]
        try:
            await self._live()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            self._directory.detach(context.uid)
        if self._stop.is_set():
            for runner in (*self._mains, *self._inits):
                runner.never_started()
        self._finished = True
        self._clean()
        await self._publish()
        await self._delete_wanted.wait()
        await self._delete()
        shutil.rmtree(self._node.log_dir(context.uid), ignore_errors=True)

    async def _live(self) -> None:
        if wrong := unsupported(self._context.pod):
            self._node.events.emit(self._context.pod, "Warning", "Unsupported", wrong)
            for runner in (*self._inits, *self._mains):
                waiting = {"reason": "CreateContainerConfigError", "message": wrong}
                runner.record.state = {"waiting": waiting}
            self._changed()
            await self._stop.wait()
            return
        if not await self._prepare():
            return
        self._sandbox_ready = True
        self._check_ports()
        self._changed()
        sidecars: list[asyncio.Task[None]] = []
        try:
            if await self._initialize(sidecars):
                await asyncio.gather(*(runner.run() for runner in self._mains))
        finally:
            await self._end_sidecars(sidecars)

    async def _prepare(self) -> bool:
        """Make the volumes, for as long as it takes; False when the pod was stopped first."""
        wait, volumes = FIRST_RETRY_S, self._context.volumes
        while not self._stop.is_set():
            try:
                await volumes.prepare(self._context.facts())
            except (VolumeError, ApiError, ApiUnreachable, OSError) as failed:
                self._node.events.emit(
                    self._context.pod, "Warning", "FailedMount", f"MountVolume.SetUp failed: {failed}"
                )
                await self._stopped_within(wait)
                wait = min(wait * 2, LAST_RETRY_S)
            else:
                return True
        return False

    async def _initialize(self, sidecars: list[asyncio.Task[None]]) -> bool:
        """Init containers one after the other; whether the main ones may start."""
        for runner in self._inits:
            if self._stop.is_set():
                return False
            if runner.record.kind == "sidecar":
                sidecars.append(asyncio.create_task(runner.run()))
                while not (runner.record.started or self._stop.is_set()):
                    self._change.clear()
                    await self._change.wait()
            else:
                await runner.run()
                if not runner.record.succeeded:
                    return False
        return not self._stop.is_set()

    async def _end_sidecars(self, sidecars: list[asyncio.Task[None]]) -> None:
        left = self._stop_at - asyncio.get_running_loop().time()
        if left == float("inf"):
            left = float(self._context.pod["spec"].get("terminationGracePeriodSeconds") or 30)
        for runner in reversed(self._inits):
            if runner.record.kind == "sidecar":
                runner.stop(max(left, 0 if self._gone else SIDECAR_GRACE_S))
        await asyncio.gather(*sidecars)

    async def _stopped_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _refresh(self) -> None:
        """Let changed ConfigMaps, Secrets, labels and ageing tokens reach the volumes."""
        while self._context.volumes.has_data:
            await asyncio.sleep(REFRESH_S)
            if not self._sandbox_ready:
                continue
            try:
                await self._context.volumes.refresh(self._context.facts())
            except (VolumeError, ApiError, ApiUnreachable, OSError) as failed:
                log.info("volumes of %s keep what they show: %s", self._context.name, failed)

    async def _deadline(self) -> None:
        while True:
            seconds = self._context.pod["spec"].get("activeDeadlineSeconds")
            if seconds is not None and (utc_now() - self._start_time).total_seconds() >= seconds:
                message = "Pod was active on the node longer than the specified deadline"
                self._failure = ("DeadlineExceeded", message)
                self._node.events.emit(self._context.pod, "Normal", "DeadlineExceeded", message)
                grace = self._context.pod["spec"].get("terminationGracePeriodSeconds")
                self._end(30.0 if grace is None else float(grace))
                return
            await asyncio.sleep(0.5)

    def _check_ports(self) -> None:
        """Say at once what would else be a puzzling `Address already in use` in a log."""
        for container in self._context.pod["spec"]["containers"]:
            for port in container.get("ports") or []:
                number, host_port = port["containerPort"], port.get("hostPort")
                if port.get("protocol", "TCP") != "TCP":
                    continue
                if host_port not in (None, number):
                    self._port_event(f"hostPort {host_port} is not forwarded to {number}: make them equal")
                if number < LOWEST_PORT:
                    self._port_event(
                        f"port {number} is below {LOWEST_PORT}: containers here can't listen there"
                    )
                elif _is_taken(self.pod_ip, number):
                    self._port_event(f"port {number} is already in use on this machine at every address")

    def _port_event(self, message: str) -> None:
        self._node.events.emit(self._context.pod, "Warning", "PortUnavailable", message)

    # -- status and deletion --------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._dirty.set()
        self._change.set()

    async def _publish_changes(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SETTLE_S)
            self._dirty.clear()
            await self._publish()

    async def _publish(self) -> None:
        """One status patch, if anything changed; tried until the API server takes it or the pod is gone."""

        async def patch() -> None:
            status = self._status()
            if status != self._published:
                await self._node.api.merge(
                    f"{self._path}/status", {"metadata": {"uid": self._context.uid}, "status": status}
                )
                self._published = status

        await self._until_done(patch)

    def _status(self) -> Obj:
        context = self._context
        view = PodView(
            pod=context.pod,
            pod_ip=self.pod_ip,
            host_ip=HOST_IP,
            start_time=self._start_time,
            containers=[runner.record for runner in (*self._inits, *self._mains)],
            sandbox_ready=self._sandbox_ready,
            finished=self._finished,
            failure=self._failure,
        )
        previous = self._published.get("conditions") or context.pod["status"].get("conditions") or []
        return build(view, previous, utc_now())

    async def _delete(self) -> None:
        async def delete() -> None:
            await self._node.api.delete(self._path, uid=self._context.uid, grace_s=0)

        await self._until_done(delete)

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._context.namespace}/pods/{self._context.name}"

    async def _until_done(self, action: Callable[[], Awaitable[None]]) -> None:
        wait = FIRST_RETRY_S
        while not self._gone:
            try:
                await action()
            except ApiError as refused:
                if refused.code in GONE:
                    self._gone = True
                    return
                log.warning("a write for %s is refused: %s", self._context.name, refused)
            except ApiUnreachable as lost:
                log.info("a write for %s waits: %s", self._context.name, lost)
            else:
                return
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_RETRY_S)

    def _clean(self) -> None:
        self._context.volumes.remove()
        shutil.rmtree(self._context.folder, ignore_errors=True)


def _is_taken(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return True
    return False
