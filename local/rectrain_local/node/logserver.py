"""What the API server asks a node directly: container logs. For its client certificate only. Run by `agent`.

A log is found by the pod's folder on disk, so it outlives the agent that wrote it. Exec, attach and
port-forward are refused with a sentence.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from .api import Obj
from .config import NodeConfig
from .context import utc_now
from .logfile import LogFile
from .logread import LogQuery, read

REFUSED: Final = {
    "exec": "kubectl exec",
    "run": "kubectl exec",
    "attach": "kubectl attach",
    "portForward": "kubectl port-forward",
}
MICROSECOND_NS: Final = 1000

FindPod = Callable[[str, str], Obj | None]


class LogServer:
    """`find_pod(namespace, name)` is the node's own view; `logs` holds a folder per pod uid."""

    def __init__(
        self, config: NodeConfig, find_pod: FindPod, logs: Path, live: Mapping[Path, LogFile]
    ) -> None:
        self._config = config
        self._find_pod = find_pod
        self._logs = logs
        self._live = live
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; the port that was taken."""
        tls = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self._config.kubelet_client_ca_file)
        )
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(self._config.serving_cert_file, self._config.serving_key_file)
        app = web.Application(middlewares=[self._only_the_api_server])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._container_logs)
        for door in REFUSED:
            app.router.add_route("*", f"/{door}/{{rest:.*}}", self._refuse)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._config.listen_host, self._config.listen_port, ssl_context=tls)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _only_the_api_server(self, request: web.Request, handler: Any) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert") or {}
        names = [
            value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"
        ]
        if names != [self._config.kubelet_client_name]:
            raise web.HTTPForbidden(text="only the API server may ask a process node\n")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _refuse(self, request: web.Request) -> web.Response:
        what = REFUSED[request.path.split("/")[1]]
        raise web.HTTPNotImplemented(
            text=f"{what} doesn't work on a process node, a stand-in that runs containers as sandboxes of "
            "the host; read its logs, or use a real cluster\n"
        )

    async def _container_logs(self, request: web.Request) -> web.StreamResponse:
        namespace, name, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        pod = self._find_pod(namespace, name)
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{namespace}/{name}" is not on this node\n')
        query = _query(request.query)
        folder = self._logs / pod["metadata"]["uid"] / container
        path = _choose(folder, previous=request.query.get("previous") == "true")
        if path is None:
            raise web.HTTPBadRequest(text=_why_none(pod, container, request.query.get("previous") == "true"))
        answer = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await answer.prepare(request)
        async for block in read(path, query, self._live.get(path)):
            await answer.write(block)
        await answer.write_eof()
        return answer


def _choose(folder: Path, *, previous: bool) -> Path | None:
    instances = sorted(int(path.stem) for path in folder.glob("*.log")) if folder.is_dir() else []
    if len(instances) <= previous:
        return None
    return folder / f"{instances[-1 - previous]}.log"


def _why_none(pod: Obj, container: str, previous: bool) -> str:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if previous:
        return f'previous terminated container "{container}" in pod "{name}" not found\n'
    statuses = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    waiting = next((s["state"].get("waiting") for s in statuses if s["name"] == container), None) or {}
    reason = waiting.get("reason") or "no log is left"
    return f'container "{container}" in pod "{name}" is waiting to start: {reason}\n'


def _query(given: Mapping[str, str]) -> LogQuery:
    try:
        since_ns = None
        if "sinceSeconds" in given:
            since_ns = _nanoseconds(utc_now() - timedelta(seconds=int(given["sinceSeconds"])))
        elif "sinceTime" in given:
            since_ns = _nanoseconds(datetime.fromisoformat(given["sinceTime"]))
        return LogQuery(
            tail=int(given["tailLines"]) if "tailLines" in given else None,
            since_ns=since_ns,
            timestamps=given.get("timestamps") == "true",
            limit_bytes=int(given["limitBytes"]) if "limitBytes" in given else None,
            follow=given.get("follow") == "true",
        )
    except ValueError as wrong:
        raise web.HTTPBadRequest(text=f"{wrong}\n") from wrong


def _nanoseconds(when: datetime) -> int:
    return int(when.timestamp() * 10**6) * MICROSECOND_NS
