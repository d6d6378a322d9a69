"""An HTTP proxy before an S3 service, which does what networks and services do on bad days.

It passes requests on as they came (their signatures stay good: path, query and Host are the client's) until a
test sets a fault: a pattern of requests, and an effect. Effects are coroutines over one exchange, so that
"the answer was lost after the write landed" is `pass_on`, then a reset. Runs in a thread of its own.
"""

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import aiohttp
from aiohttp import web
from yarl import URL

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade"}
PIECE_BYTES = 4096
RST = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: closing sends a reset instead of an end."""


class Dropped(Exception):
    """The client's connection was cut: there is no answer."""


@dataclass
class Answer:
    """What the service said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Exchange:
    """One request on its way, and the means to answer it."""

    request: web.Request
    upstream: str
    session: aiohttp.ClientSession
    _body: bytes | None = None

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def key(self) -> str:
        """`bucket/key?query`, as it stands in the request."""
        return self.request.raw_path.removeprefix("/")

    async def body(self, rate: float | None = None) -> bytes:
        """The request's body, taken at `rate` bytes a second if one is given."""
        if self._body is None:
            pieces = []
            async for piece in self.request.content.iter_chunked(PIECE_BYTES):
                pieces.append(piece)
                await asyncio.sleep(len(piece) / rate if rate else 0)
            self._body = b"".join(pieces)
        return self._body

    async def pass_on(self, headers: Mapping[str, str] | None = None) -> Answer:
        """Let the service answer, to other headers if some are given. Drops the client when it is away."""
        await self.body()
        headers = self.request.headers if headers is None else headers
        kept = [(k, v) for k, v in headers.items() if k.lower() not in HOP_BY_HOP]
        return await asyncio.shield(self._pass_on(kept))  # a client that leaves doesn't undo it

    async def _pass_on(self, headers: list[tuple[str, str]]) -> Answer:
        url = URL(self.upstream + self.request.raw_path, encoded=True)
        try:
            async with self.session.request(
                self.method, url, headers=headers, data=self._body or None, allow_redirects=False
            ) as answer:
                kept = [(k, v) for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP]
                return Answer(answer.status, kept, await answer.read())
        except (aiohttp.ClientError, OSError):
            self.drop()

    async def send(
        self, answer: Answer, *, rate: float | None = None, upto: int | None = None
    ) -> web.StreamResponse:
        """Give an answer, at `rate` bytes a second, or cut off after `upto` bytes of its body."""
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(self.request)
        body = answer.body if upto is None else answer.body[:upto]
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            await response.write(piece)
            await asyncio.sleep(len(piece) / rate if rate else 0)
        if len(body) < len(answer.body):
            self.drop(reset=False)
        await response.write_eof()
        return response

    def drop(self, *, reset: bool = True) -> NoReturn:
        """Cut the client's connection."""
        transport = self.request.transport
        if transport is not None:
            if reset:
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                transport.abort()
            else:
                transport.close()
        raise Dropped


Effect = Callable[[Exchange], Awaitable[web.StreamResponse]]


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


# -- effects


def refuse(status: int, code: str) -> Effect:
    """An error answer of S3's."""

    async def effect(exchange: Exchange) -> web.StreamResponse:
        await exchange.body()
        text = f"<Error><Code>{code}</Code><Message>by the fault proxy</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")

    return effect


async def reset(exchange: Exchange) -> web.StreamResponse:
    """The connection breaks before the service has heard of the request."""
    exchange.drop()


async def lose_answer(exchange: Exchange) -> web.StreamResponse:
    """The service did it, and nobody hears so."""
    await exchange.pass_on()
    exchange.drop()


async def hang(exchange: Exchange) -> web.StreamResponse:
    """No answer: the client gives up, which cancels this."""
    await asyncio.Event().wait()
    raise Dropped


def slow(rate: float) -> Effect:
    """Bodies trickle, in both directions, at so many bytes a second."""

    async def effect(exchange: Exchange) -> web.StreamResponse:
        await exchange.body(rate)
        return await exchange.send(await exchange.pass_on(), rate=rate)

    return effect


async def truncate(exchange: Exchange) -> web.StreamResponse:
    """An answer that ends in the middle of its body."""
    answer = await exchange.pass_on()
    return await exchange.send(answer, upto=len(answer.body) // 2)


def strike(action: Callable[[], object], *, landed: bool) -> Effect:
    """Do something at this very moment, before or after the service did its part; then drop the request."""

    async def effect(exchange: Exchange) -> web.StreamResponse:
        if landed:
            await exchange.pass_on()
        await asyncio.to_thread(action)
        exchange.drop()

    return effect


def also(action: Callable[[], object]) -> Effect:
    """Do something once the service did its part, and answer."""

    async def effect(exchange: Exchange) -> web.StreamResponse:
        answer = await exchange.pass_on()
        await asyncio.to_thread(action)
        return await exchange.send(answer)

    return effect


SLOW_DOWN = refuse(503, "SlowDown")
SERVER_ERROR = refuse(500, "InternalError")
EXPIRED = refuse(400, "ExpiredToken")
SKEWED = refuse(403, "RequestTimeTooSkewed")


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
