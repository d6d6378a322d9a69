"""Events that the node writes about its pods, few and bounded: a repeated one raises its first's count."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

from .api import Api, ApiError, ApiUnreachable, Obj
from .status import rfc3339

log = logging.getLogger(__name__)

WAITING: Final = 1000
REMEMBERED: Final = 512
LONGEST_MESSAGE: Final = 1024

Key = tuple[str, str, str]


class Events:
    """`emit` never blocks; `run` sends. When too many wait, new ones are dropped."""

    def __init__(self, api: Api, node: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._api = api
        self._node = node
        self._now = now
        self._queue: asyncio.Queue[tuple[Key, Obj]] = asyncio.Queue(WAITING)
        self._sent: OrderedDict[Key, tuple[str, int]] = OrderedDict()

    def emit(self, about: Obj, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        meta = about["metadata"]
        log.info("event of %s/%s: %s: %s", meta["namespace"], meta["name"], reason, message)
        when = rfc3339(self._now())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": about.get("kind") or "Pod",
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message[:LONGEST_MESSAGE],
            "source": {"component": "rectrain-node", "host": self._node},
            "reportingComponent": "rectrain-node",
            "reportingInstance": self._node,
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
        }
        if not self._queue.full():
            self._queue.put_nowait(((meta["uid"], reason, message), event))

    async def run(self) -> None:
        while True:
            key, event = await self._queue.get()
            try:
                await self._send(key, event)
            except (ApiError, ApiUnreachable) as failed:
                log.info("an event is lost: %s", failed)

    async def _send(self, key: Key, event: Obj) -> None:
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        name, count = self._sent.pop(key, (event["metadata"]["name"], 0))
        if count:
            try:
                again = {"count": count + 1, "lastTimestamp": event["lastTimestamp"]}
                await self._api.merge(f"{path}/{name}", again)
            except ApiError as refused:
                if refused.code != 404:  # forgotten by the API server after an hour
                    raise
                count = 0
        if not count:
            await self._api.create(path, event)
            name = event["metadata"]["name"]
        self._sent[key] = (name, count + 1)
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
