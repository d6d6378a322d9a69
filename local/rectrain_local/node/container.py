"""One container's life: prepare, start, watch, end, wait, again. Its `ContainerRecord` tells the pod.

`pod` makes a runner per container, awaits `run`, and calls `stop`. Nothing here decides about the pod.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from . import probes
from .api import Obj
from .context import PodContext, utc_now
from .logfile import LogFile
from .logread import last_lines
from .prepare import Refusal, prepare
from .process import Exit, Sandbox, start
from .restart import Backoff, runs_again
from .sandbox import options
from .status import NEVER_STARTED, ContainerRecord, Kind, rfc3339

log = logging.getLogger(__name__)

MESSAGE_BYTES: Final = 4096
FALLBACK_BYTES: Final = 2048
FALLBACK_LINES: Final = 80
RETRY_S: Final = 3.0
PULL_BACKOFF_S: Final = 10.0


class ContainerRunner:
    """Runs one container until the policy says no more, or `stop`."""

    def __init__(self, context: PodContext, spec: Obj, kind: Kind) -> None:
        self._context = context
        self._spec = spec
        policy = context.pod["spec"].get("restartPolicy") or "Always"
        # An init container that must succeed runs again under Always, but not after success.
        once = "OnFailure" if policy == "Always" else policy
        self._policy = {"main": policy, "init": once, "sidecar": "Always"}[kind]
        waiting = "ContainerCreating" if kind != "main" or not _has_inits(context.pod) else "PodInitializing"
        self.record = ContainerRecord(spec["name"], spec["image"], kind, {"waiting": {"reason": waiting}})
        self._backoff = Backoff()
        self._stopping = asyncio.Event()
        self._sandbox: Sandbox | None = None
        self._ending: asyncio.Task[None] | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._kill_at = float("inf")
        self._probes: list[asyncio.Task[None]] = []
        self._instance = -1

    async def run(self) -> None:
        """Until the container will not run again. Never raises for what the container does."""
        while not self._stopping.is_set():
            started_at = utc_now()
            if not await self._run_once():
                break
            ended = self.record.terminated
            if ended is None or not runs_again(self._policy, ended["exitCode"]) or self._stopping.is_set():
                break
            await self._back_off((utc_now() - started_at).total_seconds())

    def stop(self, grace_s: float) -> None:
        """End it for good: SIGTERM now, SIGKILL after the grace. A shorter grace may follow."""
        self._stopping.set()
        self._end_instance(grace_s)

    def never_started(self) -> None:
        """The pod ended first: say so, as a kubelet does."""
        if "waiting" in self.record.state:
            last = self.record.last_state.get("terminated")
            self.record.state = {"terminated": last or dict(NEVER_STARTED)}

    # -- one instance ---------------------------------------------------------------------------------------

    async def _run_once(self) -> bool:
        """Start and await one instance; False when it was stopped before it began."""
        instance = self._instance + 1
        sandbox, log_file = await self._start(instance)
        if sandbox is None or log_file is None:
            return False
        self._instance = instance
        self._sandbox, self._kill_at = sandbox, float("inf")
        started_at = utc_now()
        self._set_running(started_at)
        if self._stopping.is_set():
            self._end_instance(0)
        watcher = asyncio.create_task(self._watch(sandbox))
        try:
            ended = await sandbox.wait()
        finally:
            self._sandbox = None
            await _cancel([watcher, *self._probes, *([self._ending] if self._ending else [])])
            self._probes, self._ending = [], None
            if self._kill_timer is not None:
                self._kill_timer.cancel()
                self._kill_timer = None
            self._context.node.live_logs.pop(log_file.path, None)
        self._set_terminated(ended, started_at, log_file.path)
        return True

    async def _start(self, instance: int) -> tuple[Sandbox | None, LogFile | None]:
        node, pod = self._context.node, self._context.pod
        while not self._stopping.is_set():
            try:
                spec, pattern = await prepare(self._context, self._spec, instance)
            except Refusal as refusal:
                await self._refused(refusal)
                continue
            if self._stopping.is_set():
                break
            log_file = self._open_log(instance)
            try:
                sandbox = start(node.config.bwrap, options(spec, node.root), spec.command, log_file)
            except OSError as failed:
                log_file.close()
                why = f"bubblewrap ({node.config.bwrap}) can't be started: {failed}"
                await self._refused(Refusal("CreateContainerError", why, again=True))
                continue
            node.live_logs[log_file.path] = log_file
            self.record.container_id = f"bubblewrap://{uuid.uuid4().hex}"
            self.record.image_id = f"host-environment://{pattern}"
            node.events.emit(pod, "Normal", "Started", f"Started container {self.record.name}")
            return sandbox, log_file
        return None, None

    def _open_log(self, instance: int) -> LogFile:
        path = self._context.log_path(self.record.name, instance)
        path.parent.mkdir(parents=True, exist_ok=True)
        # `kubectl logs --previous` reaches one instance back, so older ones can go.
        for old in path.parent.glob(f"{instance - 2}.log*"):
            old.unlink()
        old_files = self._context.folder / "containers" / self.record.name / str(instance - 1)
        shutil.rmtree(old_files, ignore_errors=True)
        return LogFile(path)

    async def _refused(self, refusal: Refusal) -> None:
        """Show why it waits, and wait: for a while if trying again can help, else until the pod's end."""
        events, pod = self._context.node.events, self._context.pod
        events.emit(pod, "Warning", "Failed", f"Error: {refusal.reason}: {refusal}")
        self._set_waiting(refusal.reason, str(refusal))
        if refusal.reason == "ErrImagePull" and not await self._stopped_within(PULL_BACKOFF_S):
            self._set_waiting("ImagePullBackOff", str(refusal))
        await self._stopped_within(RETRY_S if refusal.again else None)

    async def _stopped_within(self, seconds: float | None) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _back_off(self, ran_for_s: float) -> None:
        wait = self._backoff.after(ran_for_s)
        self.record.last_state = self.record.state
        self.record.restart_count += 1
        if wait:
            meta = self._context.pod["metadata"]
            where = f"container={self.record.name} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
            message = f"back-off {wait:g}s restarting failed {where}"
            self._context.node.events.emit(
                self._context.pod, "Warning", "BackOff", f"Back-off restarting failed container {where}"
            )
            self._set_waiting("CrashLoopBackOff", message)
            await self._stopped_within(wait)

    # -- ending ---------------------------------------------------------------------------------------------

    def _end_instance(self, grace_s: float) -> None:
        if self._sandbox is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() + grace_s < self._kill_at:
            self._kill_at = loop.time() + grace_s
            if self._kill_timer is not None:
                self._kill_timer.cancel()
            self._kill_timer = loop.call_at(self._kill_at, self._sandbox.kill)
        if self._ending is None:
            self._context.node.events.emit(
                self._context.pod, "Normal", "Killing", f"Stopping container {self.record.name}"
            )
            self._ending = asyncio.create_task(self._end_gracefully(self._sandbox))

    async def _end_gracefully(self, sandbox: Sandbox) -> None:
        await _cancel(self._probes)
        lifecycle = self._spec.get("lifecycle") or {}
        if "preStop" in lifecycle:
            await self._hook("preStop", lifecycle["preStop"], sandbox)
        await sandbox.started()
        sandbox.signal(signal.Signals[lifecycle.get("stopSignal") or "SIGTERM"])

    async def _hook(self, name: str, handler: Obj, sandbox: Sandbox) -> str | None:
        target = await self._target(sandbox)
        # Bounded by the SIGKILL that is already set (preStop), or that ends the pod (postStart).
        wrong = await probes.check(handler, target, float("inf"))
        if wrong is not None:
            reason = f"Failed{name[0].upper()}{name[1:]}Hook"
            self._context.node.events.emit(self._context.pod, "Warning", reason, f"{name}: {wrong}")
        return wrong

    # -- watching -------------------------------------------------------------------------------------------

    async def _target(self, sandbox: Sandbox) -> probes.Target:
        pid = await sandbox.started()
        ports = {one["name"]: one["containerPort"] for one in self._spec.get("ports") or [] if "name" in one}
        return probes.Target(self._context.pod_ip, ports, pid, self._spec.get("workingDir") or "/")

    async def _watch(self, sandbox: Sandbox) -> None:
        """Hooks and probes of one instance, in a kubelet's order: postStart, startup, then the others."""
        target = await self._target(sandbox)
        post_start = (self._spec.get("lifecycle") or {}).get("postStart")
        if post_start and await self._hook("postStart", post_start, sandbox) is not None:
            self._end_instance(self._grace({}))
            return
        startup = self._spec.get("startupProbe")
        if startup is None:
            await self._has_started(target)
            return

        async def changed(good: bool, wrong: str) -> None:
            if good:
                await self._has_started(target)
            else:
                self._unhealthy(startup, "startup", wrong)

        self._add_probe(startup, target, None, changed, "Startup")

    async def _has_started(self, target: probes.Target) -> None:
        if self.record.started:
            return
        self.record.started = True
        readiness, liveness = self._spec.get("readinessProbe"), self._spec.get("livenessProbe")
        self.record.ready = readiness is None
        self._context.changed()

        async def readiness_changed(good: bool, _: str) -> None:
            self.record.ready = good
            self._context.changed()

        async def liveness_changed(good: bool, wrong: str) -> None:
            if not good and liveness is not None:
                self._unhealthy(liveness, "liveness", wrong)

        if readiness is not None:
            self._add_probe(readiness, target, False, readiness_changed, "Readiness")
        if liveness is not None:
            self._add_probe(liveness, target, True, liveness_changed, "Liveness")

    def _add_probe(
        self, probe: Obj, target: probes.Target, initial: bool | None, changed: Any, name: str
    ) -> None:
        def failed_once(wrong: str) -> None:
            self._context.node.events.emit(
                self._context.pod, "Warning", "Unhealthy", f"{name} probe failed: {wrong}"
            )

        watching: Coroutine[Any, Any, None] = probes.watch(probe, target, initial, changed, failed_once)
        self._probes.append(asyncio.create_task(watching))

    def _unhealthy(self, probe: Obj, name: str, wrong: str) -> None:
        message = f"Container {self.record.name} failed {name} probe, will be restarted: {wrong}"
        self._context.node.events.emit(self._context.pod, "Normal", "Killing", message)
        self._end_instance(self._grace(probe))

    def _grace(self, probe: Obj) -> float:
        own = probe.get("terminationGracePeriodSeconds")
        of_pod = self._context.pod["spec"].get("terminationGracePeriodSeconds")
        return float(next((value for value in (own, of_pod) if value is not None), 30))

    # -- what the record shows ------------------------------------------------------------------------------

    def _set_waiting(self, reason: str, message: str) -> None:
        self.record.state = {"waiting": {"reason": reason, "message": message}}
        self.record.ready = self.record.started = False
        self._context.changed()

    def _set_running(self, started_at: datetime) -> None:
        self.record.state = {"running": {"startedAt": rfc3339(started_at)}}
        self.record.ready = self.record.started = False
        self._context.changed()

    def _set_terminated(self, ended: Exit, started_at: datetime, log_path: Path) -> None:
        state: Obj = {
            "exitCode": ended.code,
            "reason": "StartError" if ended.error else "Error" if ended.code else "Completed",
            "startedAt": rfc3339(started_at),
            "finishedAt": rfc3339(utc_now()),
            "containerID": self.record.container_id,
        }
        message = ended.error or self._termination_message(ended.code, log_path)
        if message:
            state["message"] = message
        if ended.error:
            self._context.node.events.emit(self._context.pod, "Warning", "Failed", f"Error: {ended.error}")
        self.record.state = {"terminated": state}
        self.record.ready = self.record.started = False
        self._context.changed()

    def _termination_message(self, code: int, log_path: Path) -> str:
        folder = self._context.folder / "containers" / self.record.name / str(self._instance)
        with (folder / "termination-log").open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - MESSAGE_BYTES))
            text = stream.read(MESSAGE_BYTES)
        fall_back = self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not text and fall_back and code:
            text = last_lines(log_path, FALLBACK_LINES, FALLBACK_BYTES)
        return text.decode("utf-8", "ignore")


def _has_inits(pod: Obj) -> bool:
    return bool(pod["spec"].get("initContainers"))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    current = asyncio.current_task()
    others = [task for task in tasks if task is not current]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
