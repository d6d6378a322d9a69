"""A paged list and watch of one kind, with a label selector; kopf has neither.

`app` runs one a kind and namespace, for Jobs and pods. Reconnects for ever, lists again after 410 Gone, and
says when the server was last heard of, so that `health` can tell a dead watch from a quiet one.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final, Protocol

from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.keys import Manifest
from rectrain_operator.metrics import WATCH_RESTARTS

log = logging.getLogger(__name__)

PAGE: Final = 500
SERVER_TIMEOUT_S: Final = 270
SILENCE_S: Final = 80.0
"""Bookmarks come every minute: a stream silent for longer is dead."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 15.0
FORBIDDEN_HINT: Final = "give this account the rights that `rectrain-operator manifests` prints"


class Sink(Protocol):
    """Takes what a watch sees."""

    def listed(self, manifests: list[Manifest]) -> None:
        """All there is; what was known and isn't here was deleted meanwhile."""

    def changed(self, manifest: Manifest) -> None:
        """Added or modified."""

    def deleted(self, manifest: Manifest) -> None:
        """Deleted; the last state."""


class _Expired(Exception):
    """The version to go on from is too old: list again."""


class Watch:
    """See the module. `path` is a list path such as /apis/batch/v1/jobs."""

    def __init__(
        self,
        client: KubeClient,
        *,
        kind: str,
        path: str,
        selector: str,
        sink: Sink,
        clock: Callable[[], float],
    ) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        self.heard_at = clock()
        self._client = client
        self._path = path
        self._selector = selector
        self._sink = sink
        self._clock = clock
        self._version: str | None = None
        """Where a broken stream goes on; None: list first."""

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = self._clock()
            try:
                if self._version is None:
                    self._version = await self._list()
                await self._watch(self._version)
            except _Expired:
                self._version = None
            except ApiError as failed:
                WATCH_RESTARTS.labels(self.kind).inc()
                hint = {"hint": FORBIDDEN_HINT} if failed.status == 403 else {}
                log.warning(
                    "watch broke, connecting again",
                    extra={"kind": self.kind, "error": str(failed), "pause_s": round(pause_s, 1), **hint},
                )
                if failed.status == 410:
                    self._version = None
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            if self._clock() - began > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S

    async def _list(self) -> str:
        manifests: list[Manifest] = []
        query = {"labelSelector": self._selector, "limit": str(PAGE)}
        while True:
            page = await self._client.get(self._path, query)
            manifests.extend(page["items"])
            self.heard_at = self._clock()
            metadata = page["metadata"]
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        self._sink.listed(manifests)
        self.synced.set()
        version: str = metadata["resourceVersion"]
        return version

    async def _watch(self, version: str) -> None:
        """Follow one stream to its end."""
        query = {
            "watch": "1",
            "labelSelector": self._selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(SERVER_TIMEOUT_S),
        }
        async for event in self._client.stream(self._path, query, silence_s=SILENCE_S):
            self.heard_at = self._clock()
            self._take(event)
        self.heard_at = self._clock()

    def _take(self, event: dict[str, Any]) -> None:
        kind, manifest = event["type"], event["object"]
        if kind == "ERROR":
            if manifest.get("code") == 410:
                raise _Expired
            raise ApiError(int(manifest.get("code") or 0), str(manifest.get("message")))
        if kind in ("ADDED", "MODIFIED"):
            self._sink.changed(manifest)
        elif kind == "DELETED":
            self._sink.deleted(manifest)
        self._version = manifest["metadata"].get("resourceVersion", self._version)
