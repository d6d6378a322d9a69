"""A local copy of one API collection, kept by list and watch. Used for the node's pods and for names.

A lost watch is taken up where it ended; only an expired version (410) or a refusal leads to a new list.
Waiting between failures grows to a bound, so an API server that restarts is met again within seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from .api import Api, ApiError, ApiUnreachable, Obj

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.2
LAST_WAIT_S: Final = 5.0


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"]["uid"])


class Reflector:
    """`changed(old, new)` is called for each difference: old None is an arrival, new None a disappearance."""

    def __init__(
        self,
        api: Api,
        path: str,
        changed: Callable[[Obj | None, Obj | None], None],
        selector: Mapping[str, str] | None = None,
    ) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self._selector = dict(selector or {})
        self.objects: dict[str, Obj] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """For ever. Never raises for what the API server does."""
        wait, version = FIRST_WAIT_S, ""
        while True:
            try:
                if not version:
                    items, version = await self._api.list(self._path, self._selector)
                    self._replace(items)
                    self.synced.set()
                async for kind, obj in self._api.watch(self._path, self._selector, version):
                    version = obj["metadata"]["resourceVersion"]
                    wait = FIRST_WAIT_S
                    self._take(kind, obj)
                continue
            except ApiError as refused:
                version = ""
                log.info("listing %s again: %s", self._path, refused)
            except ApiUnreachable as lost:
                log.info("watching %s again: %s", self._path, lost)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_WAIT_S)

    def _replace(self, items: list[Obj]) -> None:
        seen = {uid_of(item): item for item in items}
        for uid in list(self.objects):
            if uid not in seen:
                self._changed(self.objects.pop(uid), None)
        for uid, item in seen.items():
            old = self.objects.get(uid)
            self.objects[uid] = item
            if old is None or old["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._changed(old, item)

    def _take(self, kind: str, obj: Obj) -> None:
        if kind == "BOOKMARK":
            return
        uid = uid_of(obj)
        old = self.objects.get(uid)
        if kind == "DELETED":
            self.objects.pop(uid, None)
            self._changed(old or obj, None)
        else:
            self.objects[uid] = obj
            self._changed(old, obj)
