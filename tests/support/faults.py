"""What can go wrong with a request on its way to an S3 service, for the fault proxy.

An effect is a coroutine over one exchange, so that "the answer was lost after the write landed" is `pass_on`,
then a reset.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

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
