"""Takes progress reports of training pods over HTTPS.

`PUT /v1/namespaces/{ns}/rectrainingjobs/{name}/progress`, body: `rectrain_api.report.ProgressReport`.

Stricter than its peers: the token's audience names this very run, and its pod must be the newest one of the
run's current Job, so neither another run of the namespace nor a pod that was replaced can write. What is
accepted is put into memory and shown by the next reconcile. Training pods have no Kubernetes permission.
"""

import logging
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from pydantic import ValidationError

from rectrain_api.report import REPORT_LIMIT_BYTES, ProgressReport, report_audience, report_path
from rectrain_api.status import TERMINAL, RecTrainingJobStatus
from rectrain_operator import paths
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.cluster import Cluster
from rectrain_operator.keys import JobKey, is_name
from rectrain_operator.metrics import REPORTS
from rectrain_operator.reports import refusal
from rectrain_operator.seen import Taken
from rectrain_operator.tokens import Bearer, Tokens
from rectrain_operator.views import PodView, job_key, pod_view

log = logging.getLogger(__name__)

NO_RIGHT: Final = "the token's pod isn't the current pod of this run"


@dataclass(frozen=True)
class _Answer(Exception):
    """A refusal on its way out."""

    status: int
    message: str


class ReportServer:
    """The handler; `app` gives it a TLS socket."""

    def __init__(self, client: KubeClient, cluster: Cluster, tokens: Tokens) -> None:
        self._client = client
        self._cluster = cluster
        self._tokens = tokens

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=REPORT_LIMIT_BYTES)
        app.router.add_put(report_path("{namespace}", "{name}"), self._put)
        return app

    async def _put(self, request: web.Request) -> web.Response:
        key = JobKey(request.match_info["namespace"], request.match_info["name"])
        try:
            if not is_name(key):
                raise _Answer(404, "no run can have this name")
            await self._take(key, request)
            status, message = 204, ""
        except _Answer as answer:
            status, message = answer.status, answer.message
        except web.HTTPRequestEntityTooLarge:
            status, message = 413, f"a report is at most {REPORT_LIMIT_BYTES} bytes"
        except ApiError as failed:
            status, message = 503, "the API server can't be asked just now"
            log.warning("report not checked", extra={"job": str(key), "error": str(failed)})
        REPORTS.labels(str(status)).inc()
        if not message:
            return web.Response(status=status)
        log.info("report refused", extra={"job": str(key), "status": status, "why": message})
        return web.json_response({"error": message}, status=status)

    async def _take(self, key: JobKey, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _Answer(401, "a bearer token is needed")
        uid, status = await self._run(key)
        bearer = await self._tokens.bearer(token.strip(), report_audience(uid))
        if bearer is None:
            raise _Answer(401, "the token isn't valid for this run")
        pod = await self._current_pod(key, uid, bearer)
        report = _parse(await request.read())
        if status.phase in TERMINAL:
            raise _Answer(409, "the run has ended")
        if why := refusal(status, self._cluster.reports.get(key), pod.name, report):
            raise _Answer(409, why)
        delay_s = self._cluster.reports.put(key, Taken(pod.name, pod.uid, report))
        self._cluster.queue.add_after(key, delay_s)

    async def _run(self, key: JobKey) -> tuple[str, RecTrainingJobStatus]:
        run = self._cluster.runs.get(key)
        if run is None:
            try:
                run = await self._client.get(paths.run(key))
            except ApiError as failed:
                if failed.status in (403, 404):
                    raise _Answer(403, NO_RIGHT) from failed
                raise
        stored = run.get("status") or {}
        known = {k: stored[k] for k in ("phase", "attempt", "reportSequence", "pod") if k in stored}
        return run["metadata"]["uid"], RecTrainingJobStatus.model_validate(known)

    async def _current_pod(self, key: JobKey, run_uid: str, bearer: Bearer) -> PodView:
        """The bearer's pod, if it is the newest of index 0 of the run's current Job."""
        if bearer.namespace != key.namespace:
            raise _Answer(403, NO_RIGHT)
        job = self._cluster.jobs.get(key)
        if job is None or job.owner_uid != run_uid:
            raise _Answer(403, NO_RIGHT)
        pods = self._cluster.pods.of(key)
        if not any(p.uid == bearer.pod_uid for p in pods):
            await self._look(key, bearer)
            pods = self._cluster.pods.of(key)
        ours = [p for p in pods if p.belongs_to(run_uid, job.uid) and p.job_uid == job.uid]
        mine = [p for p in ours if p.index == 0 and not p.ended]
        if not mine or mine[-1].uid != bearer.pod_uid:
            raise _Answer(403, NO_RIGHT)
        return mine[-1]

    async def _look(self, key: JobKey, bearer: Bearer) -> None:
        """The watch hasn't brought the pod yet: one live look."""
        try:
            manifest = await self._client.get(paths.single("Pod", key.namespace, bearer.pod_name))
        except ApiError as failed:
            if failed.status == 404:
                raise _Answer(403, NO_RIGHT) from failed
            raise
        if manifest["metadata"]["uid"] != bearer.pod_uid or job_key(manifest) != key:
            raise _Answer(403, NO_RIGHT)
        self._cluster.pods.put(key, pod_view(manifest))


def _parse(body: bytes) -> ProgressReport:
    try:
        return ProgressReport.model_validate_json(body)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the report"
        raise _Answer(422, f"{where}: {first['msg']}") from invalid
