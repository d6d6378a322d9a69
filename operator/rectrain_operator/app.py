"""Puts the parts together and runs them until a signal: feed, watches, resync, workers, servers."""

import asyncio
import gc
import logging
import signal
import socket
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from rectrain_api import PLURAL
from rectrain_api.errors import InvalidSpec, UsageError
from rectrain_operator import paths
from rectrain_operator.cert_keeper import CertificateKeeper
from rectrain_operator.client import ApiError, KubeClient, load_configuration
from rectrain_operator.cluster import Cluster, JobSink, PodSink
from rectrain_operator.feed import run_feed
from rectrain_operator.health import Health
from rectrain_operator.keys import JobKey, Manifest
from rectrain_operator.limits import WriteLimits
from rectrain_operator.metrics import QUEUE_DEPTH, RECONCILE_SECONDS, RECONCILES
from rectrain_operator.queue import WorkQueue
from rectrain_operator.reconcile import Reconciler, handle
from rectrain_operator.report_server import ReportServer
from rectrain_operator.resync import FeedMonitor, Resync
from rectrain_operator.settings import PodSettings, Settings
from rectrain_operator.tokens import Tokens
from rectrain_operator.views import SELECTOR
from rectrain_operator.watch import Sink, Watch

log = logging.getLogger(__name__)

CRD_PAUSE_S: Final = 1.0
FEED_PAUSE_S: Final = 1.0
FEED_LASTS_S: Final = 5.0


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings, client: KubeClient) -> None:
        self._settings = settings
        self._client = client
        clock = time.monotonic
        self._queue: WorkQueue[JobKey] = WorkQueue(clock)
        self._tokens = Tokens(client, clock)
        self._cluster = Cluster(self._queue, clock, pod_gone=lambda pod: self._tokens.drop_pod(pod.uid))
        self._keeper = CertificateKeeper(settings, client, instance=socket.gethostname(), now=_now)
        self._monitor = FeedMonitor()
        self._resync = Resync(client, self._cluster, self._monitor, settings.namespaces, settings.resync_s)
        self._watches = [w for ns in (settings.namespaces or (None,)) for w in self._watches_of(ns)]
        self._health = Health(self._watches, self._resync, self._monitor, clock)
        self._reconciler = Reconciler(
            client, self._cluster, self._pod_settings, now=_now, instance=socket.gethostname()
        )

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises UsageError when a port or folder can't be used."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        async with AsyncExitStack() as stack:
            main = asyncio.create_task(self._main(stack))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({main, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (main, stopped):
                task.cancel()
            results = await asyncio.gather(main, stopped, return_exceptions=True)
        failures = [r for r in results if isinstance(r, Exception)]
        if failures:
            raise failures[0]

    async def _main(self, stack: AsyncExitStack) -> None:
        await self._keeper.first()
        await self._serve(stack)
        await self._work()

    async def _work(self) -> None:
        await self._wait_for_crd()
        feed = asyncio.create_task(self._feed(), name="feed")
        others = [
            *(asyncio.create_task(w.run(), name=f"watch {w.kind}") for w in self._watches),
            asyncio.create_task(self._resync.run(), name="resync"),
            asyncio.create_task(self._keeper.run(), name="certificates"),
            *(asyncio.create_task(self._worker(), name="worker") for _ in range(self._settings.workers)),
        ]
        try:
            done, _ = await asyncio.wait({feed, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if error := task.exception():
                    raise error
        finally:
            for task in (feed, *others):
                task.cancel()
            await asyncio.gather(feed, *others, return_exceptions=True)

    async def _feed(self) -> None:
        """kopf for ever: started anew when it ends, or when its watcher has died unseen."""
        while True:
            self._monitor.started()
            feed = asyncio.create_task(run_feed(self._settings, self._on_event), name="kopf")
            dead = asyncio.create_task(self._monitor.dead.wait(), name="kopf's health")
            try:
                both = {feed, dead}
                done, _ = await asyncio.wait(both, timeout=FEED_LASTS_S, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._monitor.broken = ""
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (feed, dead):
                    task.cancel()
                results = await asyncio.gather(feed, dead, return_exceptions=True)
            errors = [f"{type(r).__name__}: {r}" for r in results if isinstance(r, Exception)]
            self._monitor.broken = errors[0] if errors else ""
            log.error("kopf's watch is dead, starting it anew", extra={"error": "; ".join(errors)})
            await asyncio.sleep(FEED_PAUSE_S)

    async def _worker(self) -> None:
        """Reconciles one key after another, once everything was listed: decisions need the whole view."""
        for watch in self._watches:
            await watch.synced.wait()
        await self._resync.listed.wait()
        while True:
            key = await self._queue.take()
            QUEUE_DEPTH.set(len(self._queue))
            try:
                with RECONCILE_SECONDS.time():
                    result = await handle(self._reconciler, self._cluster, key)
                RECONCILES.labels(result).inc()
            finally:
                self._queue.done(key)

    def _on_event(self, kind: str | None, manifest: Manifest) -> None:
        deleted = kind == "DELETED"
        self._monitor.brought(manifest, deleted=deleted)
        if deleted:
            self._cluster.run_deleted(manifest)
        else:
            self._cluster.run_changed(manifest)

    def _watches_of(self, namespace: str | None) -> list[Watch]:
        sinks: dict[str, Sink] = {
            "Job": JobSink(self._cluster, namespace),
            "Pod": PodSink(self._cluster, namespace),
        }
        return [
            Watch(
                self._client,
                kind=f"{kind}s",
                path=paths.collection(kind, namespace),
                selector=SELECTOR,
                sink=sink,
                clock=time.monotonic,
            )
            for kind, sink in sinks.items()
        ]

    async def _wait_for_crd(self) -> None:
        """kopf would wait for ever and say nothing."""
        said = False
        while True:
            try:
                served = await self._client.get(paths.API_OF_OURS)
                if any(r["name"] == PLURAL for r in served["resources"]):
                    return
                problem = "the CustomResourceDefinition isn't installed"
            except ApiError as failed:
                problem = "the CustomResourceDefinition isn't installed"
                if failed.status != 404:
                    problem = str(failed)
            if not said:
                log.warning("waiting", extra={"why": problem})
                said = True
            await asyncio.sleep(CRD_PAUSE_S)

    async def _serve(self, stack: AsyncExitStack) -> None:
        reports = ReportServer(self._client, self._cluster, self._tokens).application()
        settings = self._settings
        context = self._keeper.certificates.context
        await _listen(stack, reports, settings.report_host, settings.report_port, context=context)
        await _listen(stack, self._health.application(), settings.health_host, settings.health_port)
        log.info(
            "listening",
            extra={
                "report_port": settings.report_port,
                "report_url": settings.report_url,
                "health_port": settings.health_port,
            },
        )

    def _pod_settings(self) -> PodSettings:
        settings, ca_pem = self._settings, self._keeper.certificates.ca_pem
        return PodSettings(settings.trainer_image, settings.report_url, ca_pem)


async def _listen(
    stack: AsyncExitStack, app: web.Application, host: str, port: int, *, context: object = None
) -> None:
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port, ssl_context=context).start()  # type: ignore[arg-type]
    except OSError as failed:
        raise UsageError(
            f"Can't listen on {host}:{port} ({failed.strerror}): choose another port."
        ) from failed


async def run(settings: Settings) -> None:
    """Run an operator. Raises RectrainError with a sentence for the user."""
    configuration = await load_configuration(settings.kubeconfig)
    try:
        client = KubeClient(configuration, WriteLimits(time.monotonic))
    except OSError as failed:  # of ssl
        where = settings.kubeconfig or "the pod's service account"
        raise InvalidSpec(f"The certificate or key of {where} can't be used: {failed}.") from failed
    gc.freeze()  # else each full collection walks all modules again, and stops everybody for 60 ms
    try:
        await Operator(settings, client).run()
    finally:
        await client.close()


def _now() -> datetime:
    return datetime.now(UTC)
