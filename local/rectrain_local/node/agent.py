"""The node agent: joins the parts and runs them until it is told to end. Called by `__main__`.

Its own death is the node's power cut: the kernel kills every container with it. So ending is simple, and
starting is where the care lies: what an earlier agent left on disk goes, its pods are reported Failed.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import shutil
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from rectrain_local.errors import ClusterBusy

from .api import Api, ApiError, ApiUnreachable, Obj, kubeconfig_api, node_api
from .config import NodeConfig
from .context import NodeContext, utc_now
from .directory import Directory
from .events import Events
from .logfile import LogFile
from .logserver import LogServer
from .lost import LOST, LOST_MESSAGE, NODE_ERROR, is_over, lost_status, was_running
from .names import pod_address
from .pod import PodWorker
from .reflector import Reflector
from .registration import Registration, capacity
from .sandbox import host_root

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
SHM: Final = Path("/dev/shm")  # noqa: S108 - memory volumes belong in memory


async def run(config: NodeConfig) -> None:
    """Until SIGTERM or SIGINT."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(config.state_dir / "lock")
    memory_dir = SHM / f"rectrain-node-{hashlib.sha256(str(config.state_dir).encode()).hexdigest()[:16]}"
    try:
        _sweep(config.state_dir / "pods", memory_dir)
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(node_api(config))
            reader = await stack.enter_async_context(kubeconfig_api(config.reader_kubeconfig))
            await _Agent(config, api, reader, memory_dir).run()
    finally:
        shutil.rmtree(memory_dir, ignore_errors=True)
        os.close(lock)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as held:
        os.close(descriptor)
        raise ClusterBusy(
            f"another node agent uses {path.parent}; stop it or give this one its own"
        ) from held
    return descriptor


def _sweep(pods: Path, memory_dir: Path) -> None:
    """Nothing of an earlier agent's pods runs any more: their volumes may go, their logs stay readable."""
    shutil.rmtree(pods, ignore_errors=True)
    shutil.rmtree(memory_dir, ignore_errors=True)


class _Agent:
    def __init__(self, config: NodeConfig, api: Api, reader: Api, memory_dir: Path) -> None:
        self._config = config
        self._api = api
        self._events = Events(api, config.name)
        self._resources = capacity(config)
        live_logs: dict[Path, LogFile] = {}
        root = host_root()
        self._node = NodeContext(config, api, self._events, root, self._resources, live_logs, memory_dir)
        api_host = self._node.service_variables()["KUBERNETES_SERVICE_HOST"]
        self._directory = Directory(reader, self._events, api_host)
        mine = {"fieldSelector": f"spec.nodeName={config.name}"}
        self._pods = Reflector(api, "/api/v1/pods", self._pod_changed, mine)
        self._server = LogServer(config, self._find_pod, config.state_dir / "logs", live_logs)
        self._workers: dict[str, PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._end, None)
        port = await self._server.start()
        registration = Registration(self._api, self._config, self._resources, port)
        self._spawn(self._events.run())
        self._spawn(self._directory.run())
        self._spawn(registration.run())
        self._spawn(self._announce(registration))
        self._spawn(self._watch_pods())
        try:
            await self._ended
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.stop()

    async def _announce(self, registration: Registration) -> None:
        await registration.ready.wait()
        log.info("node %s is ready", self._config.name)
        if self._config.ready_file is not None:
            self._config.ready_file.touch()

    async def _watch_pods(self) -> None:
        # Addresses of other nodes' pods are known before the first one is given here.
        await self._directory.pods.synced.wait()
        self._spawn(self._clean_logs())
        await self._pods.run()

    async def _clean_logs(self) -> None:
        """Logs of pods that went while no agent was there."""
        await self._pods.synced.wait()
        logs = self._config.state_dir / "logs"
        for folder in logs.iterdir() if logs.is_dir() else ():
            if folder.name not in self._pods.objects:
                shutil.rmtree(folder, ignore_errors=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._end(task.exception())

    def _end(self, error: BaseException | None) -> None:
        """A part that fails unexpectedly ends the agent: half a node would be worse than none."""
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)

    # -- pods -----------------------------------------------------------------------------------------------

    def _find_pod(self, namespace: str, name: str) -> Obj | None:
        for pod in self._pods.objects.values():
            if pod["metadata"]["namespace"] == namespace and pod["metadata"]["name"] == name:
                return pod
        return None

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        worker = self._workers.get(uid)
        if new is None:
            if worker is not None:
                worker.gone()
            else:
                shutil.rmtree(self._node.log_dir(uid), ignore_errors=True)
        elif worker is not None:
            worker.update(new)
        elif is_over(new) or was_running(new):
            if not is_over(new) or "deletionTimestamp" in new["metadata"]:
                self._spawn(self._settle(new))
        else:
            taken = self._directory.taken() | {one.pod_ip for one in self._workers.values()}
            worker = PodWorker(self._node, new, pod_address(uid, taken), self._directory)
            self._workers[uid] = worker
            self._spawn(self._run_worker(uid, worker))

    async def _run_worker(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception as failed:
            # An error of ours in one pod fails that pod; the others' processes must not die for it.
            log.exception("pod %s failed in the node agent", uid)
            worker.abort()
            if uid in self._pods.objects:
                await self._settle(self._pods.objects[uid], NODE_ERROR, f"{type(failed).__name__}: {failed}")
        finally:
            self._workers.pop(uid, None)

    async def _settle(self, pod: Obj, reason: str = LOST, message: str = LOST_MESSAGE) -> None:
        """A pod without processes: say that it failed, if nobody has, and let it go if it has to."""
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        while True:
            try:
                if not is_over(pod):
                    status = lost_status(pod, utc_now(), reason, message)
                    patch = {"metadata": {"uid": meta["uid"]}, "status": status}
                    pod = await self._api.merge(f"{path}/status", patch)
                if "deletionTimestamp" in pod["metadata"]:
                    await self._api.delete(path, uid=meta["uid"], grace_s=0)
            except ApiError as refused:
                if refused.code in (404, 409):
                    return
                log.warning("%s can't be settled: %s", meta["name"], refused)
            except ApiUnreachable as lost:
                log.info("%s waits to be settled: %s", meta["name"], lost)
            else:
                return
            await asyncio.sleep(RETRY_S)
