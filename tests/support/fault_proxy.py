"""An HTTP proxy before an S3 service, which does what networks and services do on bad days.

It passes requests on as they came (their signatures stay good: path, query and Host are the client's) until a
test sets a fault: a pattern of requests, and an effect (`tests.support.faults`). Runs in a thread of its own.
"""

import asyncio
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.faults import Dropped, Effect, Exchange


@dataclass
class Fault:
    """Requests that meet an effect: those of a method and key (regular expressions), by chance, so often."""

    effect: Effect
    name: str
    method: str = ""
    key: str = ""
    body: bytes = b""
    """A part of the request's body, such as a record's kind."""
    chance: float = 1.0
    count: int | None = None
    skip: int = 0
    """So many of them pass first."""
    hits: int = 0

    async def meets(self, exchange: Exchange, dice: random.Random) -> bool:
        if self.count is not None and self.hits >= self.count:
            return False
        if not re.search(self.key, exchange.key) or not re.match(self.method, exchange.method):
            return False
        if self.body and self.body not in await exchange.body():
            return False
        if self.chance < 1.0 and dice.random() >= self.chance:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


@dataclass
class FaultProxy:
    """`start`, set faults, `stop`. Faults are tried in the order in which they were set."""

    upstream: str
    """Base URL of the service."""
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """How often each effect was met, by its name; "passed" for the rest."""
    _faults: tuple[Fault, ...] = ()
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _site: web.SockSite | None = None

    def start(self) -> None:
        self._dice = random.Random(self.seed)
        # Bound and never listening: it keeps the port ours, and refuses connections, while we are away.
        self._held = self._bound(0)
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._call(self._set_up())
        self.back()

    def stop(self) -> None:
        self._call(self._tear_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._held.close()

    @property
    def port(self) -> int:
        return int(self._held.getsockname()[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, effect: Effect, name: str, **pattern: Any) -> Fault:
        """Meet requests of this pattern (fields of Fault) with an effect, from now on."""
        fault = Fault(effect, name, **pattern)
        self._faults = (*self._faults, fault)
        return fault

    def clear(self) -> None:
        """A good day again: no faults, and here."""
        self._faults = ()
        self.back()

    def away(self) -> None:
        """Refuse connections, and cut those that are open."""
        self.counts["away"] += 1
        self._call(self._leave())

    def back(self) -> None:
        """Accept connections (again)."""
        self._call(self._return())

    # -- in the thread

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _bound(self, port: int) -> socket.socket:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        return one

    async def _set_up(self) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            # A connection of its own for every request: none that a restart of the service has broken.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{key:.*}", self._handle)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()

    async def _tear_down(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _leave(self) -> None:
        if self._site is None:
            return
        await self._site.stop()
        self._site = None
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _return(self) -> None:
        if self._site is None:
            self._site = web.SockSite(self._runner, self._bound(self.port))
            await self._site.start()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(request, self.upstream, self._session)
        try:
            for fault in self._faults:
                if await fault.meets(exchange, self._dice):
                    self.counts[fault.name] += 1
                    return await fault.effect(exchange)
            self.counts["passed"] += 1
            return await exchange.send(await exchange.pass_on())
        except (Dropped, ConnectionError):
            return web.Response()  # nobody is there to get it
