"""A second look at all RecTrainingJobs now and then, for what kopf may have missed. Run by `app`.

A kopf watcher can end and leave the process up (kopf #1276). So every few minutes the runs are listed: what
is newer than known goes to the queue, and if kopf doesn't bring the same version before the next look, its
watcher is dead: `/healthz` says so, and `app` starts kopf anew.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from rectrain_api.status import TERMINAL
from rectrain_operator import paths
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.cluster import Cluster
from rectrain_operator.keys import JobKey, Manifest, key_of
from rectrain_operator.views import version_of
from rectrain_operator.watch import PAGE

log = logging.getLogger(__name__)

OWED_S: Final = 30.0
"""kopf gets so long to bring what a list has shown."""


class FeedMonitor:
    """What kopf has brought, against what was listed."""

    def __init__(self) -> None:
        self._brought: dict[JobKey, int] = {}
        self._owed: dict[JobKey, int] = {}
        self.missing: tuple[JobKey, ...] = ()
        self.dead = asyncio.Event()
        """Set while kopf has missed something; `app` starts it anew."""
        self.broken = ""
        """Why kopf ended by itself; empty once it has lasted."""

    @property
    def waiting(self) -> bool:
        """Whether kopf still owes what the last list has shown."""
        return bool(self._owed)

    def started(self) -> None:
        """kopf was started anew: it lists everything again, and owes nothing."""
        self._owed.clear()
        self.missing = ()
        self.dead.clear()

    def brought(self, manifest: Manifest, *, deleted: bool) -> None:
        """kopf delivered a version."""
        key = key_of(manifest)
        self._owed.pop(key, None)
        if deleted:
            self._brought.pop(key, None)
        else:
            self._brought[key] = version_of(manifest)

    def listed(self, versions: dict[JobKey, int]) -> None:
        """A list has shown these; what kopf still owes from the list before is missing."""
        late = [k for k, v in self._owed.items() if k in versions and self._brought.get(k, 0) < v]
        self.missing = tuple(late)
        if late:
            self.dead.set()
        self._owed = {k: v for k, v in versions.items() if self._brought.get(k, 0) < v}


class Resync:
    """See the module."""

    def __init__(
        self,
        client: KubeClient,
        cluster: Cluster,
        monitor: FeedMonitor,
        namespaces: Sequence[str],
        every_s: float,
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._monitor = monitor
        self._namespaces = namespaces or (None,)
        self._every_s = every_s
        self.listed = asyncio.Event()
        """Set once all runs have been seen: before that no queue key may be worked on."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
                pause_s = min(self._every_s, OWED_S) if self._monitor.waiting else self._every_s
            except ApiError as failed:
                log.warning("runs not listed", extra={"error": str(failed)})
                pause_s = min(5.0, self._every_s)
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """List once. Raises ApiError."""
        known = {key for key in self._cluster.runs if self._covers(key)}
        versions: dict[JobKey, int] = {}
        for namespace in self._namespaces:
            async for manifest in self._pages(namespace):
                versions[key_of(manifest)] = version_of(manifest)
                self._cluster.run_changed(manifest)
        self._monitor.listed(versions)
        for key in known - set(versions):
            run = self._cluster.runs.get(key)
            if run is not None:
                self._cluster.run_deleted(run)
        for key in self._live():
            self._cluster.queue.add(key)
        self.listed.set()

    async def _pages(self, namespace: str | None) -> AsyncIterator[Manifest]:
        query = {"limit": str(PAGE)}
        while True:
            page = await self._client.get(paths.runs(namespace), query)
            for manifest in page["items"]:
                yield manifest
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    def _covers(self, key: JobKey) -> bool:
        return self._namespaces == (None,) or key.namespace in self._namespaces

    def _live(self) -> Iterator[JobKey]:
        for key in self._cluster.runs:
            run = self._cluster.runs.get(key)
            if run is not None and (run.get("status") or {}).get("phase") not in TERMINAL:
                yield key
