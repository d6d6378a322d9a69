"""`/healthz`, `/readyz` and `/metrics` over plain HTTP. Given a socket by `app`.

Alive: every watch has heard of the API server lately, or the API server can't be reached by anybody: a
restart mends a dead watch, not an absent server. Ready: everything was listed once.
"""

from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rectrain_operator.resync import FeedMonitor, Resync
from rectrain_operator.watch import Watch

QUIET_S: Final = 360.0
"""Longer than a stream may last: a watch silent for so long is dead, not quiet."""


class Health:
    """The three answers."""

    def __init__(
        self, watches: Sequence[Watch], resync: Resync, monitor: FeedMonitor, clock: Callable[[], float]
    ) -> None:
        self._watches = watches
        self._resync = resync
        self._monitor = monitor
        self._clock = clock

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    def ills(self) -> list[str]:
        """What only a restart can mend."""
        heard = {w: self._clock() - w.heard_at for w in self._watches}
        ills = [f"the watch of {w.kind} is silent for {int(s)} s" for w, s in heard.items() if s > QUIET_S]
        if self._monitor.missing:
            first = self._monitor.missing[0]
            ills.append(f"the watch of RecTrainingJobs missed {len(self._monitor.missing)}, such as {first}")
        return ills

    def waits(self) -> list[str]:
        """What isn't there yet."""
        waits = [f"{w.kind} aren't listed yet" for w in self._watches if not w.synced.is_set()]
        if not self._resync.listed.is_set():
            waits.append("RecTrainingJobs aren't listed yet")
        if self._monitor.broken:
            waits.append(f"the watch of RecTrainingJobs ends at once: {self._monitor.broken}")
        return waits

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        return _answer(self.ills())

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        return _answer([*self.waits(), *self.ills()])

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(problems: list[str]) -> web.Response:
    return web.Response(status=503 if problems else 200, text="\n".join(problems) or "ok")
