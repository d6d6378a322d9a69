"""One step of one run: observe → decide → apply → one status patch → events. Called by `app`."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from rectrain_api.status import TERMINAL, RecTrainingJobStatus
from rectrain_operator import paths
from rectrain_operator.apply import create_children, raise_epochs
from rectrain_operator.children.names import plan_name
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.cluster import SETTLE_S, Cluster, JobSink
from rectrain_operator.decide import decide
from rectrain_operator.events import reference_of, write_event
from rectrain_operator.gang import current_pod
from rectrain_operator.keys import JobKey, Manifest
from rectrain_operator.pretrained import source_key
from rectrain_operator.seen import Decision, EventNote, Seen
from rectrain_operator.settings import PodSettings
from rectrain_operator.status_patch import status_patch
from rectrain_operator.views import JOB_LABEL, SELECTOR, JobView, PodView, job_view, pod_view

log = logging.getLogger(__name__)


class Reconciler:
    """Idempotent: any number of times, in any order, after any crash."""

    def __init__(
        self,
        client: KubeClient,
        cluster: Cluster,
        pod_settings: Callable[[], PodSettings],
        *,
        now: Callable[[], datetime],
        instance: str,
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._pod_settings = pod_settings
        self._now = now
        self._instance = instance

    async def reconcile(self, key: JobKey) -> float | None:
        """Move one run one step; returns when to look again [s]. Raises ApiError."""
        seen = await self._observe(key)
        if seen is None:
            return None
        decision = decide(seen, self._now())
        if decision.children or decision.job_patch:
            new = seen.batch is None
            seen = await self._apply(key, seen, decision)
            events = decision.events
            if new and seen.batch is not None and not events:
                return SETTLE_S  # a moment later status can tell of the pod too, in the same write
            decision = decide(seen, self._now())
            decision = replace(decision, events=_unique((*events, *decision.events)))
        if decision.plan_epochs is not None:  # the plan itself may have been read only now
            seen = await self._raise_epochs(key, seen, decision.plan_epochs)
            events = decision.events
            decision = decide(seen, self._now())
            decision = replace(decision, events=_unique((*events, *decision.events)))
        run = await self._write_status(key, seen, decision)
        for note in decision.events:
            await write_event(self._client, reference_of(run), note, instance=self._instance, now=self._now())
        return decision.requeue_after_s

    async def refresh(self, key: JobKey) -> None:
        """Read the run again after the API server called our view of it stale. Raises ApiError."""
        known = self._cluster.runs.get(key)
        try:
            self._cluster.run_changed(await self._client.get(paths.run(key)))
        except ApiError as failed:
            if failed.status != 404:
                raise
            if known is not None:
                self._cluster.run_deleted(known)

    async def _observe(self, key: JobKey) -> Seen | None:
        run = self._cluster.runs.get(key)
        if run is None:
            return None
        uid = run["metadata"]["uid"]
        status = _status_of(run)
        batch = self._cluster.jobs.get(key)
        if batch is not None and batch.owner_uid != uid:
            batch = None
        pods = self._pods_of(key, uid, batch)
        if status.phase not in TERMINAL and batch is not None and batch.finished:
            pods = await self._with_last_words(key, uid, batch, pods)
        settings = self._pod_settings()
        return Seen(
            run=run,
            status=status,
            settings=settings,
            batch=batch,
            pods=pods,
            report=self._cluster.reports.get(key),
            present=self._cluster.present(uid, settings.ca_pem),
            plan_epochs=self._cluster.plan_epochs(uid),
            source=await self._source(run, status),
        )

    async def _source(self, run: Manifest, status: RecTrainingJobStatus) -> str | None:
        """Where the run lies that this one starts from; None when it isn't there, or was found before."""
        key = source_key(run)
        if key is None or status.pretrained is not None or status.phase in TERMINAL:
            return None
        source = self._cluster.runs.get(key)
        if source is None:  # the feed may not have come to it yet
            try:
                source = await self._client.get(paths.run(key))
            except ApiError as failed:
                if failed.status == 404:
                    return None
                raise
        uri: str = source["spec"]["checkpoint"]["uri"]
        return uri

    def _pods_of(self, key: JobKey, uid: str, batch: JobView | None) -> tuple[PodView, ...]:
        """Pods of this run, and none of a deleted one of the same name that may still be ending."""
        job_uid = batch.uid if batch is not None else None
        return tuple(p for p in self._cluster.pods.of(key) if p.belongs_to(uid, job_uid))

    async def _with_last_words(
        self, key: JobKey, uid: str, batch: JobView, pods: tuple[PodView, ...]
    ) -> tuple[PodView, ...]:
        """The Job's end may be seen before its pods': look once more, so that no result is called unread."""
        newest = {p.index: p for p in pods if p.job_uid == batch.uid}
        asked = range(1 if batch.complete else batch.completions)  # a success is told by index 0 alone
        if all(i in newest and newest[i].terminated and not newest[i].gone for i in asked):
            return pods
        selector = f"{SELECTOR},{JOB_LABEL}={key.name}"
        answer = await self._client.get(paths.collection("Pod", key.namespace), {"labelSelector": selector})
        for manifest in answer["items"]:
            self._cluster.pods.put(key, pod_view(manifest))
        return self._pods_of(key, uid, batch)

    async def _apply(self, key: JobKey, seen: Seen, decision: Decision) -> Seen:
        uid = seen.run["metadata"]["uid"]
        jobs = JobSink(self._cluster, None)
        if decision.children:
            applied = await create_children(self._client, uid, decision.children)
            self._cluster.made(uid, seen.settings.ca_pem, applied.present)
            present = seen.present | applied.present
            seen = replace(seen, present=present, refusal=applied.refusal)
            if applied.plan_epochs is not None:
                self._cluster.planned(uid, applied.plan_epochs)
                seen = replace(seen, plan_epochs=applied.plan_epochs)
            if applied.job is not None:
                jobs.changed(applied.job)
                seen = replace(seen, batch=job_view(applied.job))
                log.info("job made", extra={"job": str(key)})
        if decision.job_patch and seen.batch is not None:
            path = paths.single("Job", key.namespace, seen.batch.name)
            patched = await self._client.merge_patch(path, decision.job_patch)
            jobs.changed(patched)
            seen = replace(seen, batch=job_view(patched))
            log.info("job patched", extra={"job": str(key), "patch": str(decision.job_patch["spec"])})
        return seen

    async def _raise_epochs(self, key: JobKey, seen: Seen, epochs: int) -> Seen:
        uid = seen.run["metadata"]["uid"]
        path = paths.single("ConfigMap", key.namespace, plan_name(key.name))
        try:
            now = await raise_epochs(self._client, uid, path, epochs)
        except ApiError:
            self._cluster.doubt(uid)
            raise
        self._cluster.planned(uid, now)
        log.info("epochs raised", extra={"job": str(key), "epochs": now, "was": seen.plan_epochs})
        return replace(seen, plan_epochs=now)

    async def _write_status(self, key: JobKey, seen: Seen, decision: Decision) -> Manifest:
        patch = status_patch(seen.run, decision.status)
        run = seen.run
        if patch is not None:
            run = await self._client.merge_patch(paths.run_status(key), patch)
            self._cluster.runs.put(run)
            if decision.status.phase != seen.status.phase:
                log.info(
                    "phase changed",
                    extra={
                        "job": str(key),
                        "phase": str(decision.status.phase),
                        "was": str(seen.status.phase),
                        "why": decision.status.message,
                    },
                )
        pod = current_pod(seen)
        if seen.report is not None and pod is not None and seen.report.pod_uid == pod.uid:
            self._cluster.reports.shown(key, seen.report)
        self._cluster.pods.drop_counted(key, decision.status.counted_pods)
        if decision.status.phase in TERMINAL:
            self._cluster.reports.forget(key)
            self._cluster.pods.forget(key)
        return run


def _status_of(run: Manifest) -> RecTrainingJobStatus:
    """Status as stored; one that a newer version wrote is read as far as it goes."""
    stored = run.get("status") or {}
    try:
        return RecTrainingJobStatus.model_validate(stored)
    except ValidationError as unknown:
        bad = {str(e["loc"][0]) for e in unknown.errors()}
        return RecTrainingJobStatus.model_validate({k: v for k, v in stored.items() if k not in bad})


def _unique(notes: tuple[EventNote, ...]) -> tuple[EventNote, ...]:
    return tuple(dict.fromkeys(notes))


async def handle(reconciler: Reconciler, cluster: Cluster, key: JobKey) -> str:
    """One turn of a worker: reconcile, and put the key back where it is needed; returns how it went."""
    queue = cluster.queue
    try:
        again_s = await reconciler.reconcile(key)
    except ApiError as failed:
        return await _after_refusal(reconciler, cluster, key, failed)
    except Exception:
        delay_s = queue.retry(key, at_least_s=1.0)
        log.exception("reconcile broke", extra={"job": str(key), "again_in_s": round(delay_s, 1)})
        return "broken"
    queue.succeeded(key)
    if again_s is not None:
        queue.add_after(key, again_s)
    return "ok"


async def _after_refusal(reconciler: Reconciler, cluster: Cluster, key: JobKey, failed: ApiError) -> str:
    delay_s = cluster.queue.retry(key, at_least_s=failed.retry_after_s)
    if failed.status in (404, 409):
        try:
            await reconciler.refresh(key)
        except ApiError as again:
            log.warning("run not read", extra={"job": str(key), "error": str(again)})
        return "stale"
    log.warning(
        "reconcile failed",
        extra={"job": str(key), "error": str(failed), "again_in_s": round(delay_s, 1)},
    )
    return "refused"
